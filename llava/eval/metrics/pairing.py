"""Which questions have an answer: by question_id, never by the order of lines.

Ids are compared as texts, since one file writes 7 where another writes "7".
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

SHOWN_IDS = 5


@dataclass(frozen=True)
class Coverage:
    """Questions without an answer, answers to no question, and questions answered more than once."""

    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    repeated: tuple[str, ...]


def compare_ids(asked: Iterable[object], answered: Iterable[object]) -> Coverage:
    """How the ids of answers cover those of questions; each list in the order of its file."""
    questions = dict.fromkeys(str(name) for name in asked)
    counts = Counter(str(name) for name in answered)
    return Coverage(
        missing=tuple(name for name in questions if name not in counts),
        unknown=tuple(name for name in counts if name not in questions),
        repeated=tuple(name for name, count in counts.items() if count > 1),
    )


def repeated_ids(names: Iterable[object]) -> tuple[str, ...]:
    """The ids that stand in a file more than once."""
    return tuple(name for name, count in Counter(str(name) for name in names).items() if count > 1)


def tell(names: Iterable[object], what: str) -> str:
    """`3 questions have no answer, first 4, 8, 15`; `what` is `question has no answer|questions have ...`."""
    shown = [str(name) for name in names]
    one, several = what.split("|")
    return f"{len(shown)} {one if len(shown) == 1 else several}, first {', '.join(shown[:SHOWN_IDS])}"


MISSING = "question has no answer|questions have no answer"
UNKNOWN = "answer belongs to no question|answers belong to no question"
FAILED = "question could not be answered|questions could not be answered"
TWICE = "id stands twice|ids stand twice"
REPEATED = "question is answered more than once|questions are answered more than once"


def id_order(name: object) -> tuple[int, int, str]:
    """A sort key under which ids that are numbers stand in the order of numbers, before all others."""
    text = str(name)
    return (0, int(text), "") if text.isdecimal() else (1, 0, text)
