"""Files of questions and answers, read for scoring: rows with a question_id and texts, all problems at once."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.errors import UsageError
from llava.eval.metrics.pairing import MISSING, REPEATED, UNKNOWN, Coverage, repeated_ids, tell
from llava.records import (
    SHOWN_PROBLEMS,
    DataError,
    Problems,
    Row,
    field_of,
    kind_of,
    parse_lines,
    read_rows,
    read_text,
    shorten,
)

logger = logging.getLogger(__name__)

ANSWERS = 'answer file (JSON lines with "question_id" and "text")'


@dataclass(frozen=True)
class Entry:
    """A row of a file: where it stands, and its fields. A field that may be left out is "" then."""

    place: str
    fields: Mapping[str, object]

    @property
    def question_id(self) -> str:
        """The id as text, since 7 and "7" are one question."""
        return str(self.fields["question_id"])

    def text(self, name: str = "text") -> str:
        """A field as text."""
        return str(self.fields.get(name, ""))


def read_entries(
    path: Path, wanted: str, required: Sequence[str], optional: Sequence[str] = ()
) -> list[Entry]:
    """All rows with their text fields. `DataError` lists what is missing or of a wrong kind."""
    return entries_of(read_rows(path, wanted), Problems(path), required, optional)


def entries_of(
    rows: Iterable[Row], problems: Problems, required: Sequence[str], optional: Sequence[str] = ()
) -> list[Entry]:
    """Rows with their fields checked; `DataError` when `problems` holds any in the end."""
    entries = []
    for row in rows:
        fields = {name: field_of(row, name, problems) for name in required if isinstance(row.value, dict)}
        if not isinstance(row.value, dict):
            problems.add(row.place, f"found {kind_of(row.value)}; an object was wanted")
            continue
        given = [name for name in optional if row.value.get(name) is not None]
        entries.append(Entry(row.place, fields | {name: field_of(row, name, problems) for name in given}))
    problems.raise_any()
    return entries


def read_answers(path: Path, *, with_prompt: bool = False) -> list[Entry]:
    """Answers that are to be scored: question_id, text, prompt. `DataError` lists all problems."""
    prompt = ("prompt",)
    if with_prompt:
        return read_entries(path, ANSWERS, ("question_id", "text", "prompt"))
    return read_entries(path, ANSWERS, ("question_id", "text"), prompt)


def read_answers_leniently(path: Path) -> tuple[list[Entry], int]:
    """Answers that are to be converted, and how many lines are no JSON; those are told on the log.

    `DataError` when no line can be read, or when a row lacks a field.
    """
    rows, broken = parse_lines(read_text(path, ANSWERS))
    if not rows:
        Problems(path, broken).raise_any()
    for message in broken[:SHOWN_PROBLEMS]:
        logger.warning("%s: %s; the line is left out", path, message)
    return entries_of(rows, Problems(path), ("question_id", "text")), len(broken)


def last_texts(entries: Iterable[Entry], path: Path) -> dict[str, str]:
    """Question id -> text. Of several answers to a question the last counts, and the log says so."""
    entries = list(entries)
    repeated = repeated_ids(entry.question_id for entry in entries)
    if repeated:
        logger.warning("%s: %s; the last answer counts", path, tell(repeated, REPEATED))
    return {entry.question_id: entry.text() for entry in entries}


def refuse_repeated(entries: Iterable[Entry], path: Path, what: str = REPEATED) -> None:
    """`DataError` when an id stands in a file twice: a figure must not depend on which line comes last."""
    repeated = repeated_ids(entry.question_id for entry in entries)
    if repeated:
        raise DataError(f"{path}: {tell(repeated, what)}; keep one line for each.")


def refuse_unknown(coverage: Coverage, path: Path) -> None:
    """`DataError` when answers belong to other questions."""
    if coverage.unknown:
        raise DataError(
            f"{path}: {tell(coverage.unknown, UNKNOWN)}; give the answers to these very questions."
        )


def refuse_missing(coverage: Coverage, path: Path) -> None:
    """`DataError` when questions have no answer."""
    if coverage.missing:
        raise DataError(f"{path}: {tell(coverage.missing, MISSING)}; answer them and join the files.")


def warn_missing(coverage: Coverage, path: Path, consequence: str) -> None:
    """Tell on the log which questions have no answer and what that means."""
    if coverage.missing:
        logger.warning("%s: %s; %s", path, tell(coverage.missing, MISSING), consequence)


def wanted_path(value: str | None, flag: str) -> Path:
    """The path that a flag names; `UsageError` when the flag is not given."""
    if not value:
        raise UsageError(f"{flag} is missing; name the file or folder (see --help).")
    return Path(value)


def is_whole_number(value: object) -> bool:
    """Whether a JSON value is a whole number (true and false are none)."""
    return type(value) is int


def found(value: object, wanted: str) -> str:
    """`found a number (3); WANTED was wanted`."""
    return f"found {kind_of(value)} ({shorten(value)}); {wanted} was wanted"
