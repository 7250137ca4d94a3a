"""The answers file: JSON lines in the order of the questions, on the disk batch by batch; a rerun goes on
where it stopped, and asks again what could not be answered.

Lines are only ever appended, answers that must wait for earlier ones stand in a journal beside the file
until then. Lines that say an error are replaced at the end of a run, all at once.
"""

from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from llava.errors import UsageError
from llava.eval.answer_rows import (
    Row,
    answer_row,
    describe_key,
    error_of,
    key_of,
    key_of_row,
    parse_row,
    row_line,
)
from llava.eval.answer_storage import append, cut_torn_line, not_written, replace_file, side_file, whole_lines
from llava.eval.journal import lock_of, part_path, part_paths, read_part, write_part
from llava.eval.outcomes import Outcome
from llava.eval.questions import Question
from llava.eval.run_identity import RunIdentity, check_identity, write_identity


class AnswerFile:
    """Writes answers that arrive in any order as a file in the order of the questions; a context manager.

    Within the context no other process can write the file. `done` counts its lines.
    """

    def __init__(self, path: Path, questions: Sequence[Question]) -> None:
        self.path = path
        self.side = side_file(path)
        self.questions = list(questions)
        self.model_id = ""
        self.done = 0
        self.failed: dict[int, str] = {}
        self._own_part = part_path(path)
        self._lock = lock_of(path)
        self._again: set[int] = set()
        self._waiting: dict[int, Row] = {}
        self._new: list[int] = []
        self._has_parts = False

    def __enter__(self) -> "AnswerFile":
        if self.path.is_dir():
            raise UsageError(f"{self.path} is a folder; name the file for the answers.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
        except OSError as error:
            raise not_written(self.path, error) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def check(self) -> None:
        """`UsageError` when the file answers other questions than these; nothing is changed."""
        if self.path.is_file():
            self._check_lines(whole_lines(self.path))

    def open(self, identity: RunIdentity, *, overwrite: bool = False) -> int:
        """Take up what is there, without a torn last line; returns how many questions are answered.

        Raises `UsageError` when it holds answers to other questions or of another run. With `overwrite` it is
        kept under another name, and the file begins anew.
        """
        if overwrite:
            self._keep_old()
        rows = self._check_lines(whole_lines(self.path)) if self.path.exists() else []
        parts = part_paths(self.path)
        if parts or (self.path.exists() and self.path.stat().st_size):
            check_identity(self.path, self.side, identity, self.questions)
        write_identity(self.side, identity, self.questions)
        self.path.touch()
        cut_torn_line(self.path)
        self.model_id = identity.model_id
        self.done = len(rows)
        errors = {index: error_of(row) for index, row in enumerate(rows)}
        self.failed = {index: error for index, error in errors.items() if error is not None}
        self._again = set(self.failed)
        self._has_parts = bool(parts)
        for part in parts:
            self._take_part(part)
        self.flush()
        for part in parts:
            if part != self._own_part:
                part.unlink(missing_ok=True)
        return len(self.questions) - len(self.todo())

    def _check_lines(self, lines: Sequence[bytes]) -> list[Row]:
        """The rows of whole lines, which must answer the first questions, in order."""
        rows = []
        for number, line in enumerate(lines):
            row = parse_row(line)
            found = key_of_row(row)
            wanted = key_of(self.questions[number]) if number < len(self.questions) else None
            if row is None or found != wanted:
                raise UsageError(
                    f"{self.path} line {number + 1} {describe_key(found, 'answers')}, but the question file "
                    f"{describe_key(wanted, 'has')} there; name another --answers-file, or start anew with "
                    "--overwrite."
                )
            rows.append(row)
        return rows

    def _keep_old(self) -> None:
        """Give the file, its journals and what it says of its run names that are free."""
        if not self.path.exists():
            return
        number, kept = 1, Path(f"{self.path}.bak")
        while kept.exists():
            number += 1
            kept = Path(f"{self.path}.bak{number}")
        others = [*part_paths(self.path), self.side]
        for old in (self.path, *others):
            if old.exists():
                old.rename(f"{kept}{old.name.removeprefix(self.path.name)}")

    def _take_part(self, part: Path) -> None:
        """Take up the answers of a journal; `UsageError` while its writer still runs."""
        with lock_of(part):
            cut_torn_line(part)
            for index, row in read_part(part, self.questions):
                if error_of(row) is None and (index >= self.done or index in self._again):
                    self._waiting[index] = row
                    self.failed.pop(index, None)
                    self._new += [] if part == self._own_part else [index]

    def todo(self) -> list[int]:
        """Questions without an answer so far, also those whose line says an error."""
        indices = [*sorted(self._again), *range(self.done, len(self.questions))]
        return [index for index in indices if index not in self._waiting]

    def add(self, index: int, outcome: Outcome) -> None:
        """Take what came of question `index` (counted in all questions)."""
        self.add_row(index, answer_row(self.questions[index], outcome, self.model_id))

    def add_row(self, index: int, row: Row) -> None:
        """Take a finished line."""
        error = error_of(row)
        if error is None:
            self.failed.pop(index, None)
        else:
            self.failed[index] = error
        self._waiting[index] = row
        self._new.append(index)

    def flush(self) -> None:
        """Put what was added on the disk: into the file as far as it is in order, the rest beside it."""
        end = self.done
        while end in self._waiting:
            end += 1
        ahead = [index for index in self._new if not self.done <= index < end]
        if ahead:
            self._has_parts = True
            write_part(self._own_part, ((index, self._waiting[index]) for index in ahead))
        self._new = []
        if end > self.done:
            rows = [self._waiting[index] for index in range(self.done, end)]
            append(self.path, b"".join(map(row_line, rows)))
            for index in range(self.done, end):
                del self._waiting[index]
            self.done = end
        if not self._waiting:
            self._remove_parts()

    def _remove_parts(self) -> None:
        """Journals of which nothing waits are not needed."""
        if self._has_parts:
            for part in part_paths(self.path):
                part.unlink(missing_ok=True)
            self._has_parts = False

    def finish(self) -> None:
        """Put answers to questions that had failed before in the places of their lines, in one step."""
        self.flush()
        lines = whole_lines(self.path) if self._waiting else []
        changed = {
            index: row
            for index, row in self._waiting.items()
            if error_of(row) != error_of(parse_row(lines[index]) or {})
        }
        for index, row in changed.items():
            lines[index] = row_line(row)[:-1]
        if changed:
            replace_file(self.path, b"".join(line + b"\n" for line in lines))
        self._again = set(self.failed)
        self._waiting = {}
        self._remove_parts()

    def failures(self) -> list[tuple[Question, str]]:
        """The questions whose line says an error, and which, in the order of the file."""
        return [(self.questions[index], self.failed[index]) for index in sorted(self.failed)]
