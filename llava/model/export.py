"""Write a checkpoint of any layout, adapter merged, as transformers' LLaVA or as the original's.

    python -m llava.model.export --model-path CHECKPOINT --out FOLDER
    python -m llava.model.export --model-path ADAPTER --model-base BASE --out FOLDER --to llava

What was written is opened in a fresh process and must give the same token ids and logits.
"""

import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.model.check_export import LAYOUTS
from llava.model.locations import find_folder

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from llava.model.builder import Opened
    from llava.model.config import LlavaConfig

logger = logging.getLogger(__name__)

DTYPES = ("float32", "float16", "bfloat16")
AUTO = "auto"
SOURCE_ROOT = Path(__file__).resolve().parents[2]


def parser() -> CommandParser:
    """The command line."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--model-path", required=True, help="checkpoint folder or hub id, of any layout")
    add("--model-base", default=None, help="base model of an adapter or of a lone projector")
    add("--out", required=True, help="folder to write; it must be empty or new")
    add("--to", default="hf", choices=LAYOUTS, help="transformers' LLaVA, or the original's layout")
    add("--dtype", default=AUTO, choices=(AUTO, *DTYPES), help="numbers to store; auto: as they are")
    return options


def refuse_used(folder: Path) -> None:
    """`UsageError` when something is there already."""
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty; name a new folder with --out, or empty it.")


def stored_state(opened: "Opened", dtype: str) -> dict[str, "Tensor"]:
    """Tensors in the types that are written; the model's own weights are rounded to the same values.

    A tied head is left out, it is the embeddings.
    """
    import torch

    from llava.model.key_names import HEAD

    state = {}
    with torch.no_grad():
        for key, weight in opened.model.state_dict().items():
            if key == HEAD and opened.model.config.tie_word_embeddings:
                continue
            chosen = opened.dtypes[key] if dtype == AUTO else getattr(torch, dtype)
            state[key] = weight.to(chosen, copy=True).contiguous()
            weight.copy_(state[key])
    return state


def export(model_path: str, model_base: str | None, out: Path, *, to: str, dtype: str = AUTO) -> float:
    """Write and check; returns the largest difference of a logit. Nothing stays of what fails.

    Raises `UsageError` when the layout cannot express the model, `out` is used, or what was written differs.
    """
    import torch

    from llava.model.builder import open_checkpoint
    from llava.model.check_export import outputs_here
    from llava.model.write_hf import refuse_hf
    from llava.model.write_original import model_type_of, tower_folder_of, write_original

    written = [out] if to == "hf" else [out, tower_folder_of(out)]
    for folder in written:
        refuse_used(folder)
    opened = open_checkpoint(find_folder(model_path), model_base, dtype=torch.float32)
    config = opened.model.config
    if to == "hf":
        refuse_hf(config)
    else:
        model_type_of(config)
    state = stored_state(opened, dtype)
    expected = outputs_here(opened.tokenizer, opened.model, opened.image_processor)
    try:
        if to == "hf":
            write_hf(out, config, state, opened.tokenizer, opened.image_processor)
        else:
            write_original(out, config, state, opened)
        del opened, state  # the other process opens the model too
        return check_apart(out, to, expected)
    except BaseException:
        for folder in written:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def write_hf(
    folder: Path,
    config: "LlavaConfig",
    state: Mapping[str, "Tensor"],
    tokenizer: "PreTrainedTokenizerFast",
    image_processor: Any,
) -> None:
    """Write all files of transformers' layout, see `llava.model.write_hf` (imported when it is needed)."""
    from llava.model import write_hf as layout

    layout.write_hf(folder, config, state, tokenizer, image_processor)


def check_apart(out: Path, to: str, expected: dict[str, "Tensor"]) -> float:
    """`llava.model.check_export` in a process of its own; its complaint is a `UsageError` here."""
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "expected.safetensors"
        save_file(expected, file)
        command = [sys.executable, "-m", "llava.model.check_export", "--folder", str(out), "--to", to]
        paths = [str(SOURCE_ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        done = subprocess.run(
            [*command, "--expected", str(file)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        complaint = done.stderr.strip().rpartition("error: ")[2] or f"exit code {done.returncode}"
        raise UsageError(f"the written checkpoint failed its check, and was removed: {complaint}")
    return json.loads(done.stdout.splitlines()[-1])["worst"]


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parser().parse(argv)
    out = Path(arguments.out).resolve()
    worst = export(arguments.model_path, arguments.model_base, out, to=arguments.to, dtype=arguments.dtype)
    logger.info("Wrote %s; opened by itself, its logits differ by at most %.2g.", out, worst)


if __name__ == "__main__":
    main()
