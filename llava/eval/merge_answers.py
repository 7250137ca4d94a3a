"""Put the parts of an answers file together (one per GPU), and what stands beside them about their run.

    python -m llava.eval.merge_answers --answers-file merge.jsonl merge.jsonl.2_0 merge.jsonl.2_1

Parts are those of `--num-chunks 2 --chunk-idx 0` and 1, in order. Nothing is written when one is not whole or
when two are of different models or settings.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error
from llava.eval.answer_storage import replace_file, side_file
from llava.eval.run_identity import QUESTIONS, TOLD, differences
from llava.records import read_object

Run = Mapping[str, object]
RUN = "file about the run of the answers"


def parser() -> CommandParser:
    """Flags."""
    options = CommandParser(__doc__.splitlines()[0])
    options.add_argument("--answers-file", type=Path, required=True, help="file to write")
    options.add_argument("parts", type=Path, nargs="+", help="answers of each chunk, in order")
    return options


def settings_of(run: Run) -> Run:
    """What answers depend on, which is the same in all parts: not which questions a part has."""
    return {name: value for name, value in run.items() if name not in (QUESTIONS, *TOLD)}


def read_run(answers: Path) -> Run:
    """What stands beside answers about their run."""
    return read_object(side_file(answers), RUN)


def refuse_different(file: Path, run: Run, other_file: Path, other: Run) -> None:
    """`UsageError` with every difference of two runs."""
    told = differences(settings_of(run), settings_of(other), (file.name, other_file.name))
    if told:
        listed = "\n".join(f"  {line}" for line in told)
        raise UsageError(
            f"{file} and {other_file} are answers of different models or settings:\n{listed}\n"
            "Remove the one that is not meant, or name another --answers-file (CKPT in the scripts)."
        )


def content_of(part: Path) -> bytes:
    """A part's bytes; `UsageError` when its last line is not whole or it is not there."""
    try:
        content = part.read_bytes()
    except OSError as error:
        raise UsageError(f"{part} cannot be read ({error.strerror}); answer that part first.") from None
    if content and not content.endswith(b"\n"):
        raise UsageError(f"{part} ends in the middle of a line; give the command that wrote it again.")
    return content


def merge(parts: Sequence[Path], target: Path) -> None:
    """Write the answers and the file beside them."""
    contents, runs = [content_of(part) for part in parts], [read_run(part) for part in parts]
    for part, run in zip(parts[1:], runs[1:], strict=True):
        refuse_different(parts[0], runs[0], part, run)
    if target.exists() and side_file(target).exists():
        refuse_different(target, read_run(target), parts[0], runs[0])
    run = {name: value for name, value in runs[0].items() if name != QUESTIONS}
    replace_file(side_file(target), json.dumps(run, sort_keys=True).encode() + b"\n")
    replace_file(target, b"".join(contents))


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Merge."""
    options = parser().parse(argv)
    merge(options.parts, options.answers_file)


if __name__ == "__main__":
    main()
