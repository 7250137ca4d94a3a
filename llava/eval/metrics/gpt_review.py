"""Reviews by a judge model: a pair of scores (reference answer, model's answer) per question, and their
means.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum

from llava.eval.evidence import Figure, Scored, bootstrap_sums
from llava.eval.scored_file import by_group

Pair = tuple[float, float]

FAILED: Pair = (-1.0, -1.0)
"""Stands in review files for a review without a readable pair of scores."""

ALL = "all"
SEPARATOR = "=" * 33
HIGHEST = 10
"""What a judge gives at most."""
NUMBER = r"\d+(?:\.\d+)?"
SCORE_PAIR = re.compile(rf"\(?\s*({NUMBER})(?:\s*,\s*|\s+)({NUMBER})\s*\)?")


@dataclass(frozen=True)
class Review:
    """The scores of one question; `category` is None in files without categories."""

    question_id: str
    scores: Pair
    category: str | None = None


def parse_score(review: str) -> Pair:
    """The two scores in the first line of a review, `FAILED` when it does not hold just two numbers.

    They may stand apart by blanks, a comma or both, with brackets around them.
    """
    found = SCORE_PAIR.fullmatch(review.partition("\n")[0].strip())
    return (float(found.group(1)), float(found.group(2))) if found else FAILED


def mean(values: Iterable[float]) -> float:
    """Rounded to three digits, as the published summaries; exact before that, whatever the order."""
    numbers = list(values)
    return round(fsum(numbers) / len(numbers), 3)


def summary_line(category: str, pairs: Iterable[Pair]) -> str:
    """`category`, the model's mean in per cent of the reference's, and both means times ten."""
    pairs = list(pairs)
    reference, model = mean(first for first, _ in pairs), mean(second for _, second in pairs)
    relative = round(model / reference * 100, 1) if reference else float("nan")
    return f"{category} {relative} {round(reference * 10, 1)} {round(model * 10, 1)}"


def summarise(name: str, reviews: Iterable[Review]) -> str:
    """What the original prints for a review file: all questions, then each category, in alphabetical order.

    Reviews that are `FAILED` must have been taken out; a file without any has its name only.
    """
    groups: dict[str, list[Pair]] = {}
    for review in reviews:
        groups.setdefault(ALL, []).append(review.scores)
        if review.category is not None:
            groups.setdefault(review.category, []).append(review.scores)
    return "\n".join([name, *(summary_line(key, groups[key]) for key in sorted(groups)), SEPARATOR]) + "\n"


def scored_of(reviews: Iterable[Review], pictures: Mapping[str, str]) -> list[Scored]:
    """A row per review: what the model's answer earned of the most that a judge gives.

    Reviews that are `FAILED` must have been taken out. `pictures`: question id -> picture, where it is known.
    """
    return [
        Scored(
            question_id=review.question_id,
            value=min(max(review.scores[1], 0.0), HIGHEST) / HIGHEST,
            image=pictures.get(review.question_id),
            group=review.category,
            parsed=f"{review.scores[0]:g} {review.scores[1]:g}",
        )
        for review in reviews
    ]


def figures_of(reviews: Sequence[Review], rows: Sequence[Scored]) -> dict[str, Figure]:
    """The model's mean in per cent of the reference's over all and per category, and both means times ten.

    Reviews that are `FAILED` must have been taken out.
    """
    pairs = {review.question_id: review.scores for review in reviews}
    parts = {"relative": list(rows)}
    parts |= {f"relative_{group}": part for group, part in by_group(rows).items()}
    figures = {
        name: bootstrap_sums(part, lambda row: pairs[row.question_id], lambda sums: 100 * sums[1] / sums[0])
        for name, part in parts.items()
    }
    for place, name in enumerate(("reference", "model")):
        figures[name] = bootstrap_sums(
            rows,
            lambda row, place=place: (pairs[row.question_id][place], 1.0),
            lambda sums: 100 / HIGHEST * sums[0] / sums[1],
        )
    return figures
