"""What a check of a data file found: errors, which keep the file from being used, and notes, grouped by kind.

The readers of data files tell problems as texts; here they get a kind, so that ten thousand missing pictures
do not hide the one row that has no answer.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from llava.records import SHOWN_PROBLEMS, DataError, Problems, Row, shorten
from llava.terminal import say

ERROR, NOTE = "error", "note"
MOST_KEPT = 10_000
"""Findings of one kind that are kept in full; further ones are only counted."""
EXIT_ERRORS = 2

FILE = "file"
PICTURE_KINDS = (
    ("is not in", "picture missing"),
    ("leads out of", "picture outside the folder"),
    ("no folder of pictures", "no image folder"),
    ("the text has <image>", "<image> and pictures differ"),
    ("no regular file", "picture is no file"),
    ("cannot be read", "picture unreadable"),
    ("a URL", "name of a picture"),
    ("an absolute path", "name of a picture"),
    ("an empty", "name of a picture"),
    ("holds", "name of a picture"),
)
"""Words in problems of the image field, and the kind that they stand for."""
FIELD_KINDS = (
    (".from", "roles and their order"),
    (".value", "text of a turn"),
    ("conversations", "turns"),
    ("question_id", "id"),
    ("id", "id"),
    ("text", "text of a question"),
    ("category", "category"),
    ("image", "image field"),
)
"""Ends of a field's name, and the kind of its other problems."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    `row` counts from 0 and `place` says it in words (a line of JSON lines counts from 1); both are empty for
    the file as a whole. `field` is the path within the row, `message` says found, wanted, remedy.
    """

    level: str
    kind: str
    message: str
    row: int | None = None
    place: str = ""
    sample_id: object = None
    field: str = ""

    def __str__(self) -> str:
        label = "" if self.sample_id is None else f" (id {shorten(self.sample_id)})"
        place = ", ".join(part for part in (f"{self.place}{label}", self.field) if part)
        return f"{place}: {self.message}" if place else self.message

    def as_json(self) -> dict[str, object]:
        """The fields, as --json gives them."""
        known = self.sample_id if isinstance(self.sample_id, str | int | None) else shorten(self.sample_id)
        return {
            "row": self.row,
            "place": self.place,
            "id": known,
            "field": self.field,
            "message": self.message,
        }


@dataclass
class Group:
    """Findings of one kind: their number, and the first of them."""

    count: int = 0
    first: list[Finding] = field(default_factory=list)


@dataclass
class Report:
    """All findings about one file; `facts` are numbers about it, `samples` texts that show what is used."""

    file: Path
    facts: dict[str, object] = field(default_factory=dict)
    samples: list[tuple[str, str]] = field(default_factory=list)
    groups: dict[tuple[str, str], Group] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """One more finding."""
        group = self.groups.setdefault((finding.level, finding.kind), Group())
        group.count += 1
        if len(group.first) < MOST_KEPT:
            group.first.append(finding)

    def count(self, level: str) -> int:
        """Number of findings of a level."""
        return sum(group.count for (found, _), group in self.groups.items() if found == level)

    def of_level(self, level: str) -> list[tuple[str, Group]]:
        """(kind, group) of a level, in the order in which they were first found."""
        return [(kind, group) for (found, kind), group in self.groups.items() if found == level]

    def as_text(self, shown: int = SHOWN_PROBLEMS, *, levels: Sequence[str] = (ERROR, NOTE)) -> str:
        """The report as people read it, with the first `shown` findings of each kind."""
        lines = [str(self.file), *(f"  {name}: {value}" for name, value in self.facts.items())]
        for level in levels:
            for kind, group in self.of_level(level):
                lines += ["", f"{level}: {kind} ({group.count:,})"]
                first = group.first[:shown]
                lines += [f"  {finding}" for finding in first]
                if group.count > len(first):
                    lines.append(f"  and {group.count - len(first):,} more")
        for title, text in self.samples:
            lines += ["", title, f"  {text}"]
        return "\n".join([*lines, "", self.verdict()])

    def verdict(self) -> str:
        """The last line: whether the file can be used."""
        errors, notes = self.count(ERROR), self.count(NOTE)
        told = f"{errors:,} error{'s' * (errors != 1)}, {notes:,} note{'s' * (notes != 1)}"
        if errors:
            return f"{told}: mend the errors (rows are counted from 0, lines from 1)."
        return f"{told}: the file can be used."

    def as_json(self) -> str:
        """The report as one JSON object in ASCII; `count` is exact, at most `MOST_KEPT` findings follow."""
        kinds = [
            {
                "level": level,
                "kind": kind,
                "count": group.count,
                "findings": [finding.as_json() for finding in group.first],
            }
            for (level, kind), group in self.groups.items()
        ]
        value = {
            "file": str(self.file),
            "errors": self.count(ERROR),
            "notes": self.count(NOTE),
            "facts": self.facts,
            "kinds": kinds,
            "samples": dict(self.samples),
        }
        return json.dumps(value, indent=1)

    def print_and_exit(self, *, as_json: bool, shown: int) -> NoReturn:
        """Write the report to stdout and end the program: exit code 2 on errors, 0 with notes only."""
        text = self.as_json() if as_json else self.as_text(shown)
        say(text + "\n")
        raise SystemExit(EXIT_ERRORS if self.count(ERROR) else 0)


class CollectedProblems(Problems):
    """Problems of the row that is being read, as (place, what) pairs."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.pairs: list[tuple[str, str]] = []

    def add(self, place: str, what: str) -> None:
        """`place`: row and field; `what`: found, wanted, remedy."""
        super().add(place, what)
        self.pairs.append((place, what))

    def take(self, row: Row, *, key: str) -> Iterable[Finding]:
        """The problems since the last call, all of them this row's, as errors; `key` names its id."""
        pairs, self.pairs = self.pairs, []
        self.messages.clear()
        sample_id = row.value.get(key) if isinstance(row.value, dict) else None
        for place, what in pairs:
            rest = place.removeprefix(row.place)
            for label in (f" ({key} {shorten(sample_id)})", ", "):
                rest = rest.removeprefix(label)
            yield Finding(ERROR, kind_of_problem(rest, what), what, row.number, row.place, sample_id, rest)


def kind_of_problem(field_name: str, what: str) -> str:
    """The kind of a problem that a reader told about a field."""
    if "<image>" in what:
        return "<image> and pictures differ"
    if field_name == "image":
        found = next((kind for words, kind in PICTURE_KINDS if words in what), None)
        if found:
            return found
    if "every answer is empty" in what:
        return "answers all empty"
    if "ends with a human turn" in what or "no turn from human" in what:
        return "roles and their order"
    name = field_name.rstrip("[]0123456789")
    return next((kind for end, kind in FIELD_KINDS if name.endswith(end)), "shape of the row")


def line_findings(broken: Iterable[str]) -> Iterator[Finding]:
    """The lines of a file that are no JSON, told as `line 3: ...`."""
    for message in broken:
        place, _, rest = message.partition(": ")
        yield Finding(ERROR, "line is not JSON", rest, None, place)


def file_finding(error: DataError, file: Path) -> Finding:
    """What keeps a file from being read to its end."""
    return Finding(ERROR, FILE, str(error).removeprefix(f"{file}: ").removeprefix(f"{file} "))
