"""Files of questions and answers, read for scoring: rows with a question_id and texts, all problems told."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llava.durable import write_whole
from llava.errors import UsageError
from llava.eval.answer_rows import error_of
from llava.eval.metrics.pairing import (
    FAILED,
    MISSING,
    REPEATED,
    UNKNOWN,
    Coverage,
    compare_ids,
    repeated_ids,
    tell,
)
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
)
from llava.terminal import say

logger = logging.getLogger(__name__)

ANSWERS = 'answer file (JSON lines with "question_id" and "text")'


@dataclass(frozen=True)
class Entry:
    """A row of a file: where it stands, and its fields; those that were asked for are texts."""

    place: str
    fields: Mapping[str, object]

    @property
    def question_id(self) -> str:
        """The id as text, since 7 and "7" are one question."""
        return str(self.fields["question_id"])

    @property
    def error(self) -> str | None:
        """Why the line holds no answer; None when it does."""
        return error_of(self.fields)

    def text(self, name: str = "text") -> str:
        """A field as text, "" where the row lacks one that may be left out."""
        value = self.fields.get(name)
        return "" if value is None else str(value)


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
        if not isinstance(row.value, dict):
            problems.add(row.place, f"found {kind_of(row.value)}; an object was wanted")
            continue
        given = [name for name in optional if row.value.get(name) is not None]
        for name in (*required, *given):
            field_of(row, name, problems)
        entries.append(Entry(row.place, row.value))
    problems.raise_any()
    return entries


def read_answers(path: Path, *, with_prompt: bool = False) -> list[Entry]:
    """Answers with question_id, text, and a prompt that may be left out unless it is wanted.

    Lines that say why there is no answer are left out, see `only_answers`. `DataError` lists all problems.
    """
    required = ("question_id", "text", *(("prompt",) if with_prompt else ()))
    return only_answers(read_entries(path, ANSWERS, required, ("prompt",)), path)


def only_answers(entries: Sequence[Entry], path: Path) -> list[Entry]:
    """Entries without those whose question could not be answered: it is one without an answer, not one with
    a wrong answer. The log says which, and why.
    """
    failed = [entry for entry in entries if entry.error is not None]
    if failed:
        ids = tell((entry.question_id for entry in failed), FAILED)
        share = len(failed) / len(entries)
        logger.warning("%s: %s (%.1f%% of its lines): %s", path, ids, 100 * share, failed[0].error)
    return [entry for entry in entries if entry.error is None]


def coverage_line(answered: int, asked: int, what: str = "questions have an answer") -> str:
    """What stands beside a score over a part of the questions; nothing when all are answered."""
    if answered >= asked:
        return ""
    return f"Coverage: {100 * answered / asked:.2f}% ({answered} of {asked} {what})\n"


def read_answers_leniently(path: Path) -> tuple[list[Entry], int]:
    """Answers that are to be converted, and how many lines are no JSON; those are told on the log.

    `DataError` when no line can be read, or when a row lacks a field.
    """
    rows, broken = parse_lines(read_text(path, ANSWERS))
    if not rows:
        Problems(path, broken).raise_any()
    for message in broken[:SHOWN_PROBLEMS]:
        logger.warning("%s: %s; the line is left out", path, message)
    entries = entries_of(rows, Problems(path), ("question_id", "text"))
    return only_answers(entries, path), len(broken)


def last_entries(entries: Sequence[Entry], path: Path) -> list[Entry]:
    """One answer per question: of several the last counts, as in the original, and the log says so."""
    repeated = repeated_ids(entry.question_id for entry in entries)
    if repeated:
        logger.warning("%s: %s; the last answer counts", path, tell(repeated, REPEATED))
    return list({entry.question_id: entry for entry in entries}.values())


def last_texts(entries: Sequence[Entry], path: Path) -> dict[str, str]:
    """The same as question id -> text."""
    return {entry.question_id: entry.text() for entry in last_entries(entries, path)}


def read_answers_to(path: Path, asked: Iterable[object], consequence: str) -> dict[str, str]:
    """Question id -> text. `DataError` for answers that are repeated or belong to none of the questions
    `asked`; the log tells which questions have none, and the `consequence`.
    """
    entries = read_answers(path)
    refuse_repeated(entries, path)
    answers = {entry.question_id: entry.text() for entry in entries}
    coverage = compare_ids(asked, answers)
    refuse_unknown(coverage, path)
    warn_missing(coverage, path, consequence)
    return answers


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
        raise DataError(
            f"{path}: {tell(coverage.missing, MISSING)}; finish answering, or give all parts in one file."
        )


def warn_missing(coverage: Coverage, path: Path, consequence: str) -> None:
    """Tell on the log which questions have no answer and what that means."""
    if coverage.missing:
        logger.warning("%s: %s; %s", path, tell(coverage.missing, MISSING), consequence)


def warn_unknown(coverage: Coverage, path: Path) -> None:
    """Tell on the log which answers belong to other questions; they are not converted."""
    if coverage.unknown:
        logger.warning("%s: %s; left out", path, tell(coverage.unknown, UNKNOWN))


def wanted_path(value: str | None, flag: str) -> Path:
    """The path that a flag names; `UsageError` when the flag is not given."""
    if not value:
        raise UsageError(f"{flag} is missing; name the file or folder (see --help).")
    return Path(value)


def write_text(text: str, path: Path) -> None:
    """Write a file and the folders above it; `UsageError` when a folder is in its place."""
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name the file to write.")
    write_whole(path, text)


def write_or_say(text: str, path: Path | None) -> None:
    """Write a file, or say the text where none is named."""
    if path is None:
        say(text)
    else:
        write_text(text, path)


def write_json(value: object, path: Path, indent: int | None = None) -> None:
    """Write a value as JSON, in ASCII as the original."""
    write_text(json.dumps(value, indent=indent) + "\n", path)
