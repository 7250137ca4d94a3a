"""What a model learned about taught identities, whom it wrongly claims to know, and what it kept of the
base.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llava.eval.intervals import (
    Estimate,
    Tally,
    Units,
    mcnemar,
    mean_of_rates,
    mean_over_units,
    pooled,
    rate_over_answers,
    rate_over_units,
    wilson,
)
from llava.eval.metrics.exact import is_yes_no, matches, names_in, normalise, yes_or_no
from llava.eval.results_file import PERCENT, Figure
from llava.eval.scored_file import Scored

LEARNED_SPLITS = (
    "name", "name_reworded", "fact_image", "fact_image_reworded", "fact_text", "fact_text_reworded",
)  # fmt: skip
NAME_SPLITS = ("name", "name_reworded")
STRANGER_SPLITS = ("stranger", "lookalike")
IS_NO_SPLITS = ("is_no_stranger", "is_no_lookalike", "is_no_taught", "is_no_public")
PERSONAL_SPLITS = (
    "name_seen_view", *NAME_SPLITS, *STRANGER_SPLITS, "is_yes", *IS_NO_SPLITS, *LEARNED_SPLITS[2:],
    "fact_reversed", "attribute",
)  # fmt: skip
"""Every other split measures what the base model could do before."""

SHOWN_PER_SPLIT = 6
OVER_UNITS = "bootstrap over identities"
INTERVALS = {"retained": "bootstrap over answers", "stranger_refused": "Wilson", "stranger_claimed": "Wilson"}
"""How the intervals of the summary are made where no identities are drawn."""


@dataclass(frozen=True)
class Truth:
    """The true answer to one question; `direction` says how a reversed fact was taught (both, one)."""

    question_id: int | str
    split: str
    answer: str
    identity: str | None
    direction: str | None


@dataclass(frozen=True)
class Graded:
    """One question with the answer that was given (None: none was), and what it is worth."""

    truth: Truth
    question: str
    answer: str | None
    right: bool
    unparsable: bool
    taught_names: tuple[str, ...]

    @property
    def unit(self) -> str:
        """What the bootstrap resamples: the identity, or the question where it belongs to nobody."""
        return f"question {self.truth.question_id}" if self.truth.identity is None else self.truth.identity


def grade(truth: Truth, answer: str | None, *, question: str, names: Sequence[str]) -> Graded:
    """Judge one answer; a missing one is wrong. A right answer claims nothing, whatever words it holds."""
    if answer is None:
        return Graded(truth, question, None, False, False, ())
    right = matches(answer, truth.answer)
    unparsable = not answer.strip() or (is_yes_no(truth.answer) and yes_or_no(answer) is None)
    claimed = () if right else tuple(names_in(answer, names))
    return Graded(truth, question, answer, right, unparsable, claimed)


def units_of(graded: Iterable[Graded]) -> dict[str, Tally]:
    """Right answers per unit."""
    units: dict[str, Tally] = {}
    for item in graded:
        units[item.unit] = units.get(item.unit, Tally(0, 0, 0)) + Tally(int(item.right), 0, 1)
    return units


def claims_of(graded: Iterable[Graded]) -> dict[str, Tally]:
    """Pictures of untaught people that were given a taught name, per unit."""
    units: dict[str, Tally] = {}
    for item in graded:
        units[item.unit] = units.get(item.unit, Tally(0, 0, 0)) + Tally(int(bool(item.taught_names)), 0, 1)
    return units


def estimate_split(units: Units, *, by_identity: bool) -> Estimate:
    """A split's accuracy: bootstrap over identities, or Wilson where no identities are behind it."""
    if by_identity:
        return rate_over_units(units)
    total = pooled(units)
    return wilson(total.plus, total.n)


def score_split(graded: Sequence[Graded]) -> dict[str, object]:
    """Counts, accuracy with interval, and counts by identity; reversed facts by the direction taught as
    well.
    """
    has_identity = all(item.truth.identity is not None for item in graded)
    units = units_of(graded)
    estimate, total = estimate_split(units, by_identity=has_identity), pooled(units)
    entry: dict[str, object] = {
        "n": total.n,
        "correct": total.plus,
        "accuracy": round(estimate.value, 4),
        "low": round(estimate.low, 4),
        "high": round(estimate.high, 4),
        "unparsable": sum(item.unparsable for item in graded),
        "missing": sum(item.answer is None for item in graded),
        "by_identity": {
            name: {"n": unit.n, "correct": unit.plus} for name, unit in units.items() if has_identity
        },
    }
    directions = sorted({item.truth.direction for item in graded if item.truth.direction is not None})
    if directions:
        entry["by_direction"] = {
            direction: score_split([part_of(item) for item in graded if item.truth.direction == direction])
            for direction in directions
        }
    return entry


def part_of(item: Graded) -> Graded:
    """The same answer without its direction, so that a part of a split is not cut further."""
    row = item.truth
    truth = Truth(row.question_id, row.split, row.answer, row.identity, None)
    return Graded(truth, item.question, item.answer, item.right, item.unparsable, item.taught_names)


def summarise(by_split: Mapping[str, Sequence[Graded]]) -> dict[str, dict[str, float] | None]:
    """The numbers of the first screen; None where the examination has no such questions."""
    units = {split: units_of(items) for split, items in by_split.items()}

    def present(names: Iterable[str]) -> list[dict[str, Tally]]:
        return [units[name] for name in names if name in units]

    retained = [units[name] for name in sorted(units) if name not in PERSONAL_SPLITS]
    strangers = [item for split in STRANGER_SPLITS for item in by_split.get(split, ())]
    found: dict[str, Estimate | None] = {
        "learned": mean_over_units(present(LEARNED_SPLITS)) if present(LEARNED_SPLITS) else None,
        "retained": rate_over_answers(retained) if retained else None,
        "names": mean_of_rates(present(NAME_SPLITS)) if present(NAME_SPLITS) else None,
        "is_balanced": balanced(units),
        "overclaim": rate_over_units(claims_of(strangers)) if strangers else None,
    }
    for split in STRANGER_SPLITS:
        claims = claims_of(by_split.get(split, ()))
        has_identity = split == "lookalike"
        found[f"{split}_refused"] = (
            estimate_split(units[split], by_identity=has_identity) if split in units else None
        )
        found[f"{split}_claimed"] = estimate_split(claims, by_identity=has_identity) if claims else None
    return {name: None if estimate is None else estimate.as_dict() for name, estimate in found.items()}


def balanced(units: Mapping[str, Units]) -> Estimate | None:
    """Is this NAME?: half the accuracy on yes, half the mean accuracy over the kinds of no."""
    negatives = [units[name] for name in IS_NO_SPLITS if name in units]
    if "is_yes" not in units or not negatives:
        return None
    weights = [len(negatives), *([1] * len(negatives))]
    return mean_of_rates([units["is_yes"], *negatives], weights=weights)


def pick(graded: Sequence[Graded], count: int) -> list[Graded]:
    """A fixed choice that favours no identity: the smallest hashes of the question ids."""
    return sorted(graded, key=lambda item: hashlib.sha256(str(item.truth.question_id).encode()).hexdigest())[
        :count
    ]


def example(item: Graded) -> dict[str, object]:
    """One answered question for the reader of the scores."""
    return {
        "question_id": item.truth.question_id,
        "split": item.truth.split,
        "question": item.question,
        "answer": item.answer,
        "truth": item.truth.answer,
    }


def score(graded: Sequence[Graded]) -> dict[str, object]:
    """All scores of one run as plain values for `scores.json`."""
    by_split: dict[str, list[Graded]] = {}
    for item in graded:
        by_split.setdefault(item.truth.split, []).append(item)
    answered = sum(item.answer is not None for item in graded)
    chosen = {
        right: [
            item
            for items in by_split.values()
            for item in pick([one for one in items if one.right == right], SHOWN_PER_SPLIT)
        ]
        for right in (True, False)
    }
    return {
        "coverage": {"questions": len(graded), "answered": answered},
        "summary": summarise(by_split),
        "splits": {split: score_split(items) for split, items in by_split.items()},
        "wrong": [example(item) for item in chosen[False]],
        "right": [example(item) for item in chosen[True]],
        "outcomes": {
            split: [[item.truth.question_id, item.truth.identity, int(item.right)] for item in items]
            for split, items in by_split.items()
        },
    }


def paired_units(first: Sequence[Sequence], second: Sequence[Sequence]) -> dict[str, Tally]:
    """Two runs' outcomes ([question_id, identity, right]) on the same questions, tallied: who alone is
    right.
    """
    others = {row[0]: row[2] for row in second}
    units: dict[str, Tally] = {}
    for question_id, identity, right in first:
        unit = f"question {question_id}" if identity is None else identity
        other = others[question_id]
        tally = Tally(int(right > other), int(right < other), 1)
        units[unit] = units.get(unit, Tally(0, 0, 0)) + tally
    return units


def paired_difference(first: Mapping, second: Mapping, metric: str) -> Estimate | None:
    """First minus second run in `learned` or `retained`, question by question; both from `scores.json`.

    None when the runs have no such questions. The two must have answered the same truth file.
    """
    splits = [
        paired_units(rows, second["outcomes"][split])
        for split, rows in sorted(first["outcomes"].items())
        if (split in LEARNED_SPLITS if metric == "learned" else split not in PERSONAL_SPLITS)
    ]
    if not splits:
        return None
    return mean_over_units(splits) if metric == "learned" else rate_over_answers(splits)


def against_base(scores: Mapping, base: Mapping) -> dict[str, object]:
    """What changed against the untouched base: differences, and per split what was lost and gained."""
    splits = {}
    for split, rows in scores["outcomes"].items():
        total = pooled(paired_units(rows, base["outcomes"][split]))
        splits[split] = {
            "before": base["splits"][split]["accuracy"],
            "after": scores["splits"][split]["accuracy"],
            "lost": total.minus,
            "gained": total.plus,
            "p": round(mcnemar(total.minus, total.plus), 4),
        }
    differences = {name: paired_difference(scores, base, name) for name in ("learned", "retained")}
    return {name: None if found is None else found.as_dict() for name, found in differences.items()} | {
        "splits": splits
    }


def scored_of(graded: Iterable[Graded]) -> list[Scored]:
    """A row per question; an identity stands in the place of a picture, since identities are drawn."""
    return [
        Scored(
            question_id=str(item.truth.question_id),
            value=float(item.right),
            image=item.truth.identity,
            group=item.truth.split,
            parsed=None if item.answer is None or item.unparsable else normalise(item.answer),
            missing=item.answer is None,
        )
        for item in graded
    ]


def figures_of(scores: Mapping) -> dict[str, Figure]:
    """What the summary of `scores` says, and the accuracy of each split."""
    splits = scores["splits"]
    sizes = {name: split["n"] for name, split in splits.items()}
    over = {
        "learned": LEARNED_SPLITS,
        "retained": [name for name in splits if name not in PERSONAL_SPLITS],
        "names": NAME_SPLITS,
        "is_balanced": ("is_yes", *IS_NO_SPLITS),
        "overclaim": STRANGER_SPLITS,
    } | {f"{name}_{what}": (name,) for name in STRANGER_SPLITS for what in ("refused", "claimed")}
    figures = {}
    for name, found in scores["summary"].items():
        if found is not None:
            n = sum(sizes.get(split, 0) for split in over[name])
            figures[name] = figure_of(found, n, INTERVALS.get(name, OVER_UNITS))
    for name, split in splits.items():
        found = {"value": split["accuracy"], "low": split["low"], "high": split["high"]}
        interval = OVER_UNITS if split["by_identity"] else "Wilson"
        figures[f"split_{name}"] = figure_of(found, split["n"], interval)
    return figures


def figure_of(found: Mapping[str, float], n: int, interval: str) -> Figure:
    """A share with its interval in per cent."""
    low, value, high = (100 * found[key] for key in ("low", "value", "high"))
    return Figure(value, low, high, n, PERCENT, interval)
