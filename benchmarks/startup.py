"""Start-up: seconds of `import llava` and of `--help` of every command, and what heavy packages they import.

python -m benchmarks.startup
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.record import RESULTS, as_table, environment, median_of, write_result
from llava.command_line import CommandParser
from llava.errors import exit_on_usage_error

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("torch", "transformers", "accelerate", "peft")
WORKERS = ("benchmarks.training_run",)
"""Modules that a command starts by itself; they have no flags."""
MEASURING = tuple(f"benchmarks.{name}" for name in ("evaluate", "index", "memory", "padding", "waiting"))
"""Programs of this folder that measure torch at work; nobody waits for their --help."""
REPORT = f"""
import runpy, sys
name = sys.argv[1]
sys.argv[:] = [name, "--help"]
try:
    run = runpy.run_path if name.endswith(".py") else runpy.run_module
    run(name, run_name="__main__")
except SystemExit:
    pass
sys.stderr.write("imported: " + " ".join(name for name in {HEAVY!r} if name in sys.modules))
"""


def commands() -> list[str]:
    """Everything that can be started: modules by their dotted names, scripts by their paths."""
    found = []
    for folder in ("llava", "playground", "benchmarks", "scripts"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "\nif __name__ ==" not in file.read_text(encoding="utf-8"):
                continue
            path = file.relative_to(ROOT)
            found.append(str(path) if folder == "scripts" else ".".join(path.with_suffix("").parts))
    return [name for name in found if name not in (*WORKERS, *MEASURING)]


def help_of(command: str) -> tuple[str, list[str]]:
    """What `--help` prints, and the heavy packages that were imported for it."""
    done = subprocess.run(
        [sys.executable, "-c", REPORT, command], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout, done.stderr.rpartition("imported: ")[2].split()


def seconds_of(words: Sequence[str]) -> float:
    """How long a Python process takes."""
    started = time.perf_counter()
    subprocess.run([sys.executable, *words], capture_output=True, check=True, cwd=ROOT)
    return time.perf_counter() - started


def measure(runs: int) -> list[dict[str, object]]:
    """A bare interpreter, `import llava`, and every command."""
    words = {"python -c pass": ["-c", "pass"], "import llava": ["-c", "import llava"]}
    for command in commands():
        started_as = [command] if command.endswith(".py") else ["-m", command]
        words[" ".join([*started_as, "--help"])] = [*started_as, "--help"]
    heavy = {" ".join([*(["-m"] * (not name.endswith(".py"))), name, "--help"]): name for name in commands()}
    return [
        {
            "command": name,
            "seconds": median_of([seconds_of(started) for _ in range(runs)]),
            "imports": help_of(heavy[name])[1] if name in heavy else [],
        }
        for name, started in words.items()
    ]


def table(record: dict) -> str:
    """The result as people read it."""
    rows: list[Sequence[object]] = [("command", "seconds", "spread", "heavy imports")]
    for row in record["rows"]:
        seconds = row["seconds"]
        rows.append(
            (f"`{row['command']}`", seconds["median"], f"{seconds['spread']:.0%}", ", ".join(row["imports"]))
        )
    return as_table(rows)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the result."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--runs", type=int, default=3, help="starts of each; the table has their median")
    arguments = options.parse(argv)
    record = environment(["benchmarks.startup", *(sys.argv[1:] if argv is None else argv)])
    record |= {"rows": measure(arguments.runs)}
    sys.stdout.write(table(record) + "\n")
    write_result(record, RESULTS / "startup.json")


if __name__ == "__main__":
    main()
