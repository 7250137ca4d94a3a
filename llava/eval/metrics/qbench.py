"""Q-Bench A1 (Wu et al. 2024): the option chosen, over all questions, per type and per concern."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from llava.eval.metrics.options import chosen_option, lettered_options

TYPES = {0: "yes-or-no", 1: "what", 2: "how"}
CONCERNS = {0: "distortion", 1: "other", 2: "in-context distortion", 3: "in-context other"}
"""How the benchmark's numbers are called."""


@dataclass(frozen=True)
class Item:
    """A question; `right` is None in a split without answers, the kinds where the file lacks them."""

    question_id: str
    image: str
    question: str
    options: tuple[str, ...]
    right: str | None
    type: str | None = None
    concern: str | None = None


@dataclass(frozen=True)
class Judged:
    """An item and the letter read out of its answer; None when it cannot be told or `missing`."""

    item: Item
    chosen: str | None
    missing: bool

    @property
    def right(self) -> bool:
        """Whether the right option was chosen."""
        return self.chosen is not None and self.chosen == self.item.right


def judge(items: Sequence[Item], answers: Mapping[str, str]) -> list[Judged]:
    """All items in their order; `answers`: question id -> text."""
    judged = []
    for item in items:
        text = answers.get(item.question_id)
        chosen = None if text is None else chosen_option(text, lettered_options(item.options))
        judged.append(Judged(item, chosen, text is None))
    return judged
