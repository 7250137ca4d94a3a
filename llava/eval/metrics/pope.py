"""POPE (Li et al. 2023, arXiv 2305.10355): yes or no about objects that are, or are not, in a picture."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llava.errors import UsageError
from llava.eval.evidence import Figure, Scored, bootstrap_sums, figure
from llava.eval.metrics.pairing import id_order

NO_WORDS = {"No", "no", "not"}
SEPARATOR = "=" * 36
BOTH = ("image", "text")


@dataclass(frozen=True)
class Item:
    """A question, or the label of one: its id, picture and text where the file has them."""

    question_id: str | None
    image: str | None = None
    text: str | None = None

    @property
    def first_line(self) -> str:
        """The question itself; how to answer stands below it in the files of LLaVA."""
        return (self.text or "").partition("\n")[0].strip()


@dataclass(frozen=True)
class Counts:
    """Answers by what was said and what is true; yes is the positive class."""

    true_yes: int
    false_yes: int
    true_no: int
    false_no: int

    @property
    def total(self) -> int:
        return self.true_yes + self.false_yes + self.true_no + self.false_no

    @property
    def accuracy(self) -> float:
        return share(self.true_yes + self.true_no, self.total)

    @property
    def precision(self) -> float:
        return share(self.true_yes, self.true_yes + self.false_yes)

    @property
    def recall(self) -> float:
        return share(self.true_yes, self.true_yes + self.false_no)

    @property
    def f1(self) -> float:
        return share(2 * self.precision * self.recall, self.precision + self.recall)

    @property
    def yes_ratio(self) -> float:
        return share(self.true_yes + self.false_yes, self.total)


@dataclass(frozen=True)
class Judged:
    """An answer: what it said (yes or no), what is true, and the word it was read by, None for none."""

    question: Item
    category: str
    said_yes: bool
    is_yes: bool
    word: str | None

    @property
    def name(self) -> str:
        """The question's id."""
        return str(self.question.question_id)


def word_of(answer: str, *, said_yes: bool) -> str | None:
    """What an answer was read by: what says neither yes nor no counts as yes, but was not read as it."""
    if not said_yes:
        return "no"
    return "yes" if "yes" in re.findall(r"\w+", answer.lower()) else None


def share(part: float, whole: float) -> float:
    """part / whole, and 0 of nothing: a model that never says yes has precision 0."""
    return part / whole if whole else 0.0


def says_yes(answer: str, *, any_form: bool = False) -> bool:
    """Everything is yes but a first sentence with the word No, no or not, as in the published figures.

    `any_form`: a first word NO, "No" or no! says no as well.
    """
    first_sentence = answer.partition(".")[0].replace(",", "")
    if NO_WORDS & set(first_sentence.split(" ")):
        return False
    words = re.findall(r"\w+", answer) if any_form else []
    return not words or words[0].lower() != "no"


def label_is_yes(label: str, *, any_form: bool = False) -> bool:
    """Every label but `no` is yes, as in the published figures; `any_form`: `No` and `NO` are no as well."""
    return (label.strip().lower() if any_form else label) != "no"


def count(pairs: Iterable[tuple[bool, bool]]) -> Counts:
    """Pairs of (said yes, is yes), in any order."""
    pairs = list(pairs)
    return Counts(
        true_yes=pairs.count((True, True)),
        false_yes=pairs.count((True, False)),
        true_no=pairs.count((False, False)),
        false_no=pairs.count((False, True)),
    )


def pair_labels(questions: Sequence[Item], labels: Sequence[Item]) -> dict[str, int]:
    """Question id -> place of its label, for one category.

    A label belongs to the question with its picture and text; there may be labels without a question then.
    Where those are unknown or stand for several labels, both files are put in the order of what they tell
    alike and of their ids, since they number their rows differently. Labels without an id stand as they do
    in their file. Raises `UsageError` when there are not as many labels as questions.
    """
    known = {key_of(label, BOTH): place for place, label in enumerate(labels)}
    keys = {str(question.question_id): key_of(question, BOTH) for question in questions}
    if len(known) == len(labels) and all(key in known and all(key) for key in keys.values()):
        return {name: known[key] for name, key in keys.items()}
    if len(questions) != len(labels):
        raise UsageError(
            f"{len(labels)} labels for {len(questions)} questions; give the question file that belongs to "
            "these annotations."
        )
    fields = shared_fields(questions, labels)

    def order(place: int, item: Item) -> tuple:
        number = (0, place, "") if item.question_id is None else id_order(item.question_id)
        return (key_of(item, fields), number)

    places = sorted(range(len(labels)), key=lambda place: order(place, labels[place]))
    asked = sorted(range(len(questions)), key=lambda place: order(place, questions[place]))
    return {str(questions[mine].question_id): theirs for mine, theirs in zip(asked, places, strict=True)}


def key_of(item: Item, fields: Iterable[str]) -> tuple[str, ...]:
    """What both files say of a question."""
    values = {"image": (item.image or "").rsplit("/")[-1], "text": item.first_line}
    return tuple(values[name] for name in fields)


def shared_fields(questions: Sequence[Item], labels: Sequence[Item]) -> tuple[str, ...]:
    """Which of picture and text both files tell alike: both, one of them, or none."""
    for fields in (BOTH, ("image",), ("text",)):
        if sorted(key_of(item, fields) for item in questions) == sorted(
            key_of(item, fields) for item in labels
        ):
            return fields
    return ()


def by_category(judged: Iterable[Judged]) -> dict[str, Counts]:
    """Category -> counts, in alphabetical order."""
    groups: dict[str, list[tuple[bool, bool]]] = {}
    for one in judged:
        groups.setdefault(one.category, []).append((one.said_yes, one.is_yes))
    return {category: count(groups[category]) for category in sorted(groups)}


def scored_of(judged: Iterable[Judged]) -> list[Scored]:
    """A row per question."""
    return [
        Scored(one.name, float(one.said_yes == one.is_yes), one.question.image, one.category, one.word)
        for one in judged
    ]


def figures_of(judged: Sequence[Judged]) -> dict[str, Figure]:
    """The mean F1 over categories (the published figure), that of each, and shares over all questions."""
    rows, known = scored_of(judged), {one.name: one for one in judged}
    categories = sorted({one.category for one in judged})

    def outcome(row: Scored) -> list[float]:
        one = known[row.question_id]
        kinds = [(True, True), (True, False), (False, False), (False, True)]
        hits = [float((one.said_yes, one.is_yes) == kind) for kind in kinds]
        return [hit * (one.category == name) for name in categories for hit in hits]

    def mean_f1(sums: np.ndarray) -> np.ndarray:
        return 100 * np.nanmean(f1_of(sums.reshape(len(categories), 4, -1)), axis=0)

    figures = {"f1": bootstrap_sums(rows, outcome, mean_f1), "accuracy": figure(rows)}
    said = [replace(row, value=float(known[row.question_id].said_yes)) for row in rows]
    figures["yes_ratio"] = figure(said)
    for place, name in enumerate(categories):
        part = [row for row in rows if row.group == name]
        figures[f"f1_{name}"] = bootstrap_sums(
            part, lambda row, start=4 * place: outcome(row)[start : start + 4], lambda sums: 100 * f1_of(sums)
        )
        figures[f"accuracy_{name}"] = figure(part)
    return figures


def f1_of(counts: np.ndarray) -> np.ndarray:
    """F1 of (..., 4, D) counts (true yes, false yes, true no, false no): 0 where no yes is right, nan over no
    question.
    """
    true_yes, false_yes, _, false_no = np.moveaxis(counts, -2, 0)
    found = 2 * true_yes / np.maximum(2 * true_yes + false_yes + false_no, 1)
    return np.where(counts.sum(axis=-2) > 0, found, np.nan)


def block(category: str, counts: Counts) -> str:
    """What the original prints for a category, to the letter."""
    summary = (counts.f1, counts.accuracy, counts.precision, counts.recall, counts.yes_ratio)
    lines = [
        f"Category: {category}, # samples: {counts.total}",
        "TP\tFP\tTN\tFN\t",
        f"{counts.true_yes}\t{counts.false_yes}\t{counts.true_no}\t{counts.false_no}",
        f"Accuracy: {counts.accuracy}",
        f"Precision: {counts.precision}",
        f"Recall: {counts.recall}",
        f"F1 score: {counts.f1}",
        f"Yes ratio: {counts.yes_ratio}",
        ", ".join(f"{value:.3f}" for value in summary),
        SEPARATOR,
    ]
    return "\n".join(lines) + "\n"
