"""Answers that cannot stand in the answers file yet, kept beside it: {"index": 17, "row": {...}} per line.

They wait for earlier ones, for the end of a run that asks failed questions again, or for the other ranks.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from llava.errors import UsageError
from llava.eval.answer_rows import Row, key_of, key_of_row, parse_row, row_line
from llava.eval.answer_storage import append, whole_lines
from llava.eval.questions import Question
from llava.file_lock import FileLock

SUFFIX = ".part"
"""Follows the name of the answers file; ranks add `-RANK-of-RANKS`."""


def part_path(path: Path, rank: int = 0, ranks: int = 1) -> Path:
    """The journal beside an answers file, one for each rank."""
    return path.with_name(f"{path.name}{SUFFIX}" + (f"-{rank}-of-{ranks}" if ranks > 1 else ""))


def part_paths(path: Path) -> list[Path]:
    """All journals that lie beside an answers file."""
    names = re.compile(re.escape(path.name + SUFFIX) + r"(-\d+-of-\d+)?")
    return sorted(file for file in path.parent.iterdir() if names.fullmatch(file.name))


def lock_of(target: Path) -> FileLock:
    """The right to write an answers file or a journal, held through a file beside it."""
    path = target.with_name(f"{target.name}.lock")
    in_use = f"{target} is being written by another run"
    return FileLock(path, in_use=in_use, remedy="wait for it or name another --answers-file")


def write_part(path: Path, rows: Iterable[tuple[int, Row]]) -> None:
    """Append answers, durably."""
    lines = [b'{"index": %d, "row": %s}\n' % (index, row_line(row)[:-1]) for index, row in rows]
    if lines:
        append(path, b"".join(lines))


def read_part(path: Path, questions: list[Question]) -> list[tuple[int, Row]]:
    """(index, row) of all whole lines. `UsageError` for a line that is no answer to that question."""
    found = []
    for number, line in enumerate(whole_lines(path), start=1):
        entry = parse_row(line)
        index, row = (None, None) if entry is None else (entry.get("index"), entry.get("row"))
        known = isinstance(index, int) and isinstance(row, dict) and 0 <= index < len(questions)
        if not known or key_of_row(row) != key_of(questions[index]):  # type: ignore[arg-type, index]
            raise UsageError(
                f"{path} line {number} is no answer to a question of this file; it belongs to another run or "
                "is damaged. Start anew with --overwrite (all files are kept), or remove it."
            )
        found.append((index, row))
    return found
