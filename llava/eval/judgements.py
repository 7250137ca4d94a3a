"""What a judge model said, kept in a file so that nothing is asked and paid twice: a JSON line per judgement.

A judgement is known by the SHA-256 of all that was sent for it (model, decoding and texts): another prompt is
another judgement. Lines are only ever appended, each on the disk before the next; of several for one key the
last counts.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from llava.errors import UsageError
from llava.eval.answer_rows import parse_row
from llava.eval.answer_storage import append, cut_torn_line, not_written, whole_lines
from llava.eval.endpoint import Completion
from llava.file_lock import FileLock
from llava.records import DataError

SUFFIX = ".judgements.jsonl"
"""Follows the name of the file that is made of the judgements."""


@dataclass
class Judgements:
    """Judgements by their key, on the disk at `path`."""

    path: Path
    known: dict[str, Completion] = field(default_factory=dict)

    def add(self, key: str, said: Completion) -> None:
        """Keep one; `UsageError` when the disk does not take it."""
        row = {"sha256": key, "content": said.text, "usage": [said.prompt_tokens, said.completion_tokens]}
        append(self.path, json.dumps(row, ensure_ascii=False).encode() + b"\n")
        self.known[key] = said


def judgements_path(output: Path) -> Path:
    """Where the judgements lie that an output file is made of."""
    return output.with_name(output.name + SUFFIX)


def refuse_foreign(output: Path) -> None:
    """`UsageError` for a folder, and for judgements of another program, which may have been paid for."""
    if output.is_dir():
        raise UsageError(f"--output {output} is a folder; name the file to write.")
    kept = judgements_path(output)
    if output.is_file() and output.stat().st_size and not kept.exists():
        raise UsageError(
            f"{output} exists, but not {kept.name}, which holds the judgements that this program asked; name "
            "another --output, or remove it."
        )


@contextmanager
def judgements_beside(output: Path) -> Iterator[Judgements]:
    """Those that lie beside an output file, an unfinished last line cut off; nobody else writes meanwhile.

    `UsageError` while another run does, `DataError` for a file that holds something else.
    """
    path = judgements_path(output)
    in_use = f"{path} is being written by another run"
    lock = FileLock(
        path.with_name(f"{path.name}.lock"), in_use=in_use, remedy="wait for it or name another --output"
    )
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except OSError as error:
        raise not_written(path, error) from None
    try:
        if path.exists():
            cut_torn_line(path)
        yield Judgements(path, read_judgements(path) if path.exists() else {})
    finally:
        lock.release()


def read_judgements(path: Path) -> dict[str, Completion]:
    """Key -> judgement, of all whole lines."""
    known = {}
    for number, line in enumerate(whole_lines(path), start=1):
        row = parse_row(line)
        key, text, usage = (None, None, None) if row is None else map(row.get, ("sha256", "content", "usage"))
        if not isinstance(key, str) or not isinstance(text, str) or not is_usage(usage):
            raise DataError(f"{path} line {number} is no judgement; remove the file, all is asked anew then.")
        known[key] = Completion(text, *usage)  # type: ignore[misc]
    return known


def is_usage(value: object) -> bool:
    """A pair of token counts, None where the server told none."""
    return (
        isinstance(value, list) and len(value) == 2 and all(one is None or type(one) is int for one in value)
    )
