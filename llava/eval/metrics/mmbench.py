"""MMBench (Liu et al. 2023): accuracy, and circular accuracy, where a question counts when it is answered
right for every order of its options.

The orders are rows of the table (indices that differ by a multiple of a million are one question) or rounds
of `--all-rounds`, in which the options are turned round by one each time.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

from llava.eval.metrics.options import chosen_option, lettered_options

TURNED_ROWS = 1_000_000
"""The rows of a question's other orders have its index and a multiple of this."""

Key = tuple[str, int]
"""(index of a row, number of the round from 0)."""


@dataclass(frozen=True)
class Row:
    """A row of the table: `answer` is a letter of `options`, `image` tells which rows share a picture."""

    index: str
    options: tuple[str, ...]
    answer: str
    category: str | None = None
    ability: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Judged:
    """One showing of a row: the letter read out of the answer, as the row names it, and whether it is right.

    `chosen` is None when it cannot be told; `missing`: there is no answer.
    """

    row: Row
    round_id: int
    chosen: str | None
    right: bool
    missing: bool


@dataclass(frozen=True)
class Asked:
    """A question: its rows in the order of their indices, and all its showings, those as it stands first."""

    name: str
    rows: tuple[Row, ...]
    showings: tuple[Judged, ...]

    @property
    def first(self) -> Judged:
        """The question as it stands."""
        return self.showings[0]

    @property
    def has_all_orders(self) -> bool:
        """Whether it was shown in as many orders as it has options."""
        return len(self.showings) >= max(len(self.first.row.options), 1)

    @property
    def missing(self) -> bool:
        """Whether an order has no answer."""
        return any(one.missing for one in self.showings)

    @property
    def all_right(self) -> bool:
        """Whether every order was answered right."""
        return all(one.right for one in self.showings)

    @property
    def letters(self) -> str | None:
        """What was chosen order by order; None when one cannot be told."""
        chosen = [one.chosen for one in self.showings]
        return None if None in chosen else "".join(str(letter) for letter in chosen)


def question_of(index: str, known: Container[str]) -> str:
    """The index of the question that a row belongs to, which is its own unless that of the first order is
    known.
    """
    base = str(int(index) % TURNED_ROWS) if index.isdecimal() else index
    return base if base in known else index


def turned(row: Row, round_id: int) -> list[str]:
    """The row's letters in the order in which a round shows their options."""
    letters = list(lettered_options(row.options))
    return letters[round_id:] + letters[:round_id]


def judge_showing(row: Row, round_id: int, answer: str | None) -> Judged:
    """Judge an answer to one round of a row; None stands for no answer."""
    own = turned(row, round_id)
    options = lettered_options(row.options)
    shown = lettered_options([options[letter] for letter in own])
    letter = None if answer is None else chosen_option(answer, shown)
    chosen = None if letter is None else dict(zip(shown, own, strict=True))[letter]
    return Judged(row, round_id, chosen, chosen == row.answer, answer is None)


def judge(rows: Sequence[Row], answers: Mapping[Key, str]) -> list[Asked]:
    """All questions in the order of the table; rounds count when the answers have any but the first."""
    turns = any(round_id > 0 for _, round_id in answers)
    known = {row.index for row in rows}
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(question_of(row.index, known), []).append(row)
    return [ask(name, group, answers, turns=turns) for name, group in groups.items()]


def ask(name: str, rows: Sequence[Row], answers: Mapping[Key, str], *, turns: bool) -> Asked:
    """One question with its rows in the order of their indices."""
    ordered = sorted(rows, key=lambda row: (row.index != name, len(row.index), row.index))
    showings = [
        judge_showing(row, round_id, answers.get((row.index, round_id)))
        for row in ordered
        for round_id in range(max(len(row.options), 1) if turns else 1)
    ]
    return Asked(name, tuple(ordered), tuple(showings))
