"""Write down how a run came about: settings, versions, hashes and times, for the report.

    python -m llava.eval.run_record --run-dir runs/lora --name lora --method lora --recipe default --seed 0 \\
        --learning-rate 2e-3 --rank 64 --checkpoint runs/lora/checkpoint --command
        scripts/v1.5/finetune_task_lora.sh
"""

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.durable import write_whole
from llava.errors import exit_on_usage_error
from llava.eval.versions import versions
from llava.model.weight_files import weights_hash


def commit() -> str | None:
    """The commit of the source tree with `+changes` when files differ from it; None outside a git
    checkout.
    """
    folder = Path(__file__).resolve().parent
    try:
        name = subprocess.run(
            ["git", "rev-parse", "--short=12", "HEAD"], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return name + ("+changes" if changed else "")


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Write run.json."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--run-dir", type=Path, required=True)
    add("--name", required=True)
    add("--method", choices=("lora", "full", "base"), required=True)
    add("--recipe", choices=("default", "naive", "shuffled"), default=None)
    add("--seed", type=int, default=None)
    add("--learning-rate", type=float, default=None)
    add("--rank", type=int, default=None)
    add("--started", type=float, default=None, help="seconds since 1970 when training began")
    add("--checkpoint", type=Path, required=True)
    add("--base", type=Path, default=None, help="the checkpoint that training began with")
    add("--command", default="")
    args = options.parse(argv)
    record = {
        "name": args.name,
        "method": args.method,
        "recipe": args.recipe,
        "seed": args.seed,
        "learning_rate": args.learning_rate,
        "rank": args.rank,
        "train_seconds": None if args.started is None else round(time.time() - args.started, 1),
        "checkpoint": args.checkpoint.name,
        "checkpoint_sha256": weights_hash(args.checkpoint),
        "base_sha256": None if args.base is None else weights_hash(args.base),
        "command": args.command,
        "commit": commit(),
        "versions": versions(),
    }
    write_whole(args.run_dir / "run.json", json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
