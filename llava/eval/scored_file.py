"""`scored.jsonl`: what the answer to each question of a benchmark earned, one JSON line per question."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from llava.durable import write_whole
from llava.eval.metrics.pairing import TWICE, id_order, repeated_ids, tell
from llava.records import DataError, Problems, Row, kind_of, missing_key, read_rows, shorten

FILE_NAME = "scored.jsonl"
WANTED = 'file of scored questions (JSON lines with "question_id" and "value")'
TEXTS = ("image", "group", "parsed")


@dataclass(frozen=True)
class Scored:
    """One question's result.

    Attributes:
        value: what the answer earns, from 0 to 1.
        image: its picture; questions on one picture are not independent, so that pictures are drawn.
        group: its category, task or type.
        parsed: what was read out of the answer; None when nothing could be.
        missing: whether there is no answer, or a line that says an error.
    """

    question_id: str
    value: float
    image: str | None = None
    group: str | None = None
    parsed: str | None = None
    missing: bool = False

    @property
    def unparsable(self) -> bool:
        """Whether there is an answer out of which nothing could be read."""
        return self.parsed is None and not self.missing

    @property
    def unit(self) -> tuple[str, str]:
        """What the bootstrap draws: the picture, or the question where no picture is known."""
        return ("question", self.question_id) if self.image is None else ("picture", self.image)


def in_order(rows: Iterable[Scored]) -> list[Scored]:
    """Rows in the order of their ids, so that nothing depends on the order of lines in a file."""
    return sorted(rows, key=lambda row: id_order(row.question_id))


def by_group(rows: Iterable[Scored]) -> dict[str, list[Scored]]:
    """Group -> its rows, in alphabetical order; rows without a group are left out."""
    groups: dict[str, list[Scored]] = {}
    for row in rows:
        if row.group is not None:
            groups.setdefault(row.group, []).append(row)
    return dict(sorted(groups.items()))


def write_scored(path: Path, rows: Sequence[Scored]) -> None:
    """Write the file whole, in the order of ids. Ids must differ."""
    assert not repeated_ids(row.question_id for row in rows), "one row per question"
    write_whole(path, "".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in in_order(rows)))


def read_scored(path: Path) -> list[Scored]:
    """The rows of a file. `DataError` lists all that is wrong with it."""
    problems = Problems(path)
    rows = [scored_of(row, problems) for row in read_rows(path, WANTED)]
    problems.raise_any()
    found = [row for row in rows if row is not None]
    repeated = repeated_ids(row.question_id for row in found)
    if repeated:
        raise DataError(f"{path}: {tell(repeated, TWICE)}; keep one line for each.")
    return found


def scored_of(row: Row, problems: Problems) -> Scored | None:
    """One line, or None when something is wrong with it."""
    before, values = len(problems.messages), row.value
    if not isinstance(values, dict):
        problems.add(row.place, f"found {kind_of(values)}; an object was wanted")
        return None
    for key in ("question_id", "value"):
        if key not in values:
            problems.add(f"{row.place}, {key}", missing_key(values, key, ()))
    if len(problems.messages) > before:
        return None
    name, value, missing = values["question_id"], values["value"], values.get("missing", False)
    if type(name) not in (str, int):
        problems.add(f"{row.place}, question_id", f"found {shorten(name)}; a text was wanted")
    if type(value) not in (int, float) or not math.isfinite(value) or not 0 <= value <= 1:
        problems.add(f"{row.place}, value", f"found {shorten(value)}; a number from 0 to 1 was wanted")
    if type(missing) is not bool:
        problems.add(f"{row.place}, missing", f"found {shorten(missing)}; true or false was wanted")
    for key in TEXTS:
        if not isinstance(values.get(key), str | None):
            problems.add(f"{row.place}, {key}", f"found {shorten(values[key])}; a text or null was wanted")
    if len(problems.messages) > before:
        return None
    known = {field.name for field in fields(Scored)}
    given = {key: entry for key, entry in values.items() if key in known}
    return Scored(**given | {"question_id": str(name), "value": float(value)})
