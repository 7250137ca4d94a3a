"""LoRA beside full fine-tuning: at equal learning rate, at equal learning, and the verdict that follows."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llava.eval.intervals import Estimate, over_seeds
from llava.eval.metrics.personal import paired_difference
from llava.eval.report_data import Configuration, Run, estimate_of, short_rate

GRID = 9
"""Levels of learning at which two methods are compared."""


@dataclass(frozen=True)
class RateComparison:
    """LoRA minus full fine-tuning at one learning rate; positive means that LoRA has more."""

    recipe: str
    learning_rate: float
    rank: int | None
    learned: Estimate
    retained: Estimate
    seeds: int


@dataclass(frozen=True)
class LevelComparison:
    """LoRA minus full in what is retained, where both learned equally much; no difference where they never
    do.

    `lora_range` and `full_range` are the levels of learning that each reaches (mean over seeds).
    """

    recipe: str
    rank: int | None
    lora_range: tuple[float, float]
    full_range: tuple[float, float]
    shared_range: tuple[float, float] | None
    difference: Estimate | None
    seeds: int


def difference(first: Configuration, second: Configuration, metric: str) -> Estimate | None:
    """First minus second. Runs of the same seed and questions are compared question by question, then
    averaged.

    Without such pairs the intervals are combined as if independent.
    """
    pairs = matched(first.runs, second.runs)
    found = [paired_difference(one.scores, other.scores, metric) for one, other in pairs]
    if found and None not in found:
        return over_seeds([estimate for estimate in found if estimate is not None], floor=-1.0)
    one, other = first.summary(metric), second.summary(metric)
    if one is None or other is None:
        return None
    value = one.value - other.value
    down = float(np.hypot(one.value - one.low, other.high - other.value))
    up = float(np.hypot(one.high - one.value, other.value - other.low))
    return Estimate(value, value - down, value + up)


def matched(first: Sequence[Run], second: Sequence[Run]) -> list[tuple[Run, Run]]:
    """Pairs with the same seed and the same questions."""
    others = {(str(run.seed), run.truth): run for run in second}
    return [(run, others[str(run.seed), run.truth]) for run in first if (str(run.seed), run.truth) in others]


def at_equal_rate(configurations: Sequence[Configuration]) -> list[RateComparison]:
    """Every LoRA configuration with the full one that has its recipe and learning rate."""
    full = {(one.recipe, one.learning_rate): one for one in configurations if one.method == "full"}
    rows = []
    for lora in configurations:
        other = full.get((lora.recipe, lora.learning_rate))
        if lora.method != "lora" or other is None or lora.learning_rate is None:
            continue
        learned, retained = difference(lora, other, "learned"), difference(lora, other, "retained")
        if learned is not None and retained is not None:
            count = max(1, len(matched(lora.runs, other.runs)))
            rows.append(
                RateComparison(str(lora.recipe), lora.learning_rate, lora.rank, learned, retained, count)
            )
    return rows


def at_equal_learning(configurations: Sequence[Configuration]) -> list[LevelComparison]:
    """Per recipe and rank, where both methods were tried with at least two learning rates."""
    rows = []
    kinds = dict.fromkeys((one.recipe, one.rank) for one in configurations if one.method == "lora")
    for recipe, rank in kinds:
        lora = [one for one in configurations if (one.method, one.recipe, one.rank) == ("lora", recipe, rank)]
        full = [one for one in configurations if (one.method, one.recipe) == ("full", recipe)]
        if len(lora) > 1 and len(full) > 1:
            row = compare_levels(lora, full)
            rows += [] if row is None else [row]
    return rows


def compare_levels(lora: Sequence[Configuration], full: Sequence[Configuration]) -> LevelComparison | None:
    """One recipe and rank: seed by seed, then the mean over the seeds at which the two overlap."""
    curves = [curve_of(mean_points(group)) for group in (lora, full)]
    if not all(curves):
        return None
    ranges = [(min(x for x, _ in curve), max(x for x, _ in curve)) for curve in curves]
    found = []
    for key in dict.fromkeys((str(run.seed), run.truth) for one in lora for run in one.runs):
        own = [curve_of(seed_points(group, key)) for group in (lora, full)]
        gap = level_difference(*own) if all(len(curve) > 1 for curve in own) else None
        found += [] if gap is None else [Estimate(gap, gap, gap)]
    shared = (max(low for low, _ in ranges), min(high for _, high in ranges))
    return LevelComparison(
        recipe=str(lora[0].recipe),
        rank=lora[0].rank,
        lora_range=ranges[0],
        full_range=ranges[1],
        shared_range=shared if shared[0] < shared[1] else None,
        difference=over_seeds(found, floor=-1.0) if found else None,
        seeds=len(found),
    )


Points = list[tuple[float, float]]
"""(learned, retained), in the order of rising learning rate."""


def curve_of(points: Sequence[tuple[float, float] | None]) -> Points:
    """The points that exist."""
    return [point for point in points if point is not None]


def mean_points(group: Sequence[Configuration]) -> list[tuple[float, float] | None]:
    """Mean over seeds per configuration."""
    return [point_of(one.summary("learned"), one.summary("retained")) for one in group]


def seed_points(group: Sequence[Configuration], key: tuple[str, object]) -> list[tuple[float, float] | None]:
    """The runs of one seed."""
    runs = [run for one in group for run in one.runs if (str(run.seed), run.truth) == key]
    return [point_of(run.summary("learned"), run.summary("retained")) for run in runs]


def point_of(learned: Estimate | None, retained: Estimate | None) -> tuple[float, float] | None:
    """Both values, or nothing."""
    return None if learned is None or retained is None else (learned.value, retained.value)


def level_difference(lora: Points, full: Points) -> float | None:
    """Mean difference in retained over the levels of learning that both reach; None where they share none."""
    low = max(min(x for x, _ in lora), min(x for x, _ in full))
    high = min(max(x for x, _ in lora), max(x for x, _ in full))
    if low >= high:
        return None
    levels = [low + (high - low) * step / (GRID - 1) for step in range(GRID)]
    return float(np.mean([retained_at(lora, level) - retained_at(full, level) for level in levels]))


def retained_at(curve: Points, level: float) -> float:
    """The most that is retained at a level of learning, between neighbouring learning rates by straight
    lines.
    """
    found = []
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if min(x0, x1) <= level <= max(x0, x1):
            share = 0.5 if x0 == x1 else (level - x0) / (x1 - x0)
            found.append(y0 + share * (y1 - y0))
    assert found, "the level lies within the curve's range"
    return max(found)


def percent(value: float) -> str:
    """`93.4 %`, with a space that does not break."""
    return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"


def span(estimate: Estimate) -> str:
    """`93.4 % (88 to 97)`."""
    return f"{percent(estimate.value)} ({100 * estimate.low:.0f} to {100 * estimate.high:.0f})"


def verdict(configurations: Sequence[Configuration]) -> str:
    """One sentence: LoRA beside full fine-tuning if both are there with one recipe, else what the first run
    did.
    """
    by_kind = {(one.method, one.recipe): one for one in configurations}
    recipes = dict.fromkeys(one.recipe for one in configurations if one.recipe != "shuffled")
    for recipe in recipes:
        lora, full = by_kind.get(("lora", recipe)), by_kind.get(("full", recipe))
        if lora is not None and full is not None and complete(lora) and complete(full):
            return compare_sentence(lora, full)
    trained = [one for one in configurations if one.method != "base" and complete(one)]
    if trained:
        return single_sentence(trained[0])
    return (
        "No run was both taught and examined on what it should know and keep, so there is nothing to "
        "judge yet."
    )


def complete(configuration: Configuration) -> bool:
    """Whether both axes were measured."""
    return configuration.summary("learned") is not None and configuration.summary("retained") is not None


def numbers(configuration: Configuration) -> tuple[Estimate, Estimate]:
    """Learned and retained of a complete configuration."""
    learned, retained = configuration.summary("learned"), configuration.summary("retained")
    assert learned is not None, "only complete configurations are judged"
    assert retained is not None, "only complete configurations are judged"
    return learned, retained


def compare_sentence(lora: Configuration, full: Configuration) -> str:
    """Both with their numbers, then what the difference of the two says."""
    parts = []
    for configuration, name in ((lora, "LoRA"), (full, "full fine-tuning")):
        learned, retained = numbers(configuration)
        parts.append(f"{name} learned {percent(learned.value)} and kept {percent(retained.value)}")
    differences = [difference(lora, full, metric) for metric in ("learned", "retained")]
    learned_sign, retained_sign = (0 if found is None else found.sign for found in differences)
    return f"{parts[0]}, {parts[1]}{before_words(lora)}: {conclusion(learned_sign, retained_sign)}."


def before_words(configuration: Configuration) -> str:
    """`, of 88.0 % before`, where the base was measured on the same questions."""
    retained, change = configuration.summary("retained"), configuration.change("retained")
    if retained is None or change is None:
        return ""
    return f" (the base model had {percent(retained.value - change.value)} of these skills)"


def conclusion(learned_sign: int, retained_sign: int) -> str:
    """What LoRA did compared with full fine-tuning; signs of the differences, 0 where the interval holds
    zero.
    """
    if learned_sign == retained_sign == 0:
        return "the two cannot be told apart here, neither in learning nor in forgetting"
    learned = {1: "more", 0: "about as much", -1: "less"}[learned_sign]
    forgot = {1: "less", 0: "about as much", -1: "more"}[retained_sign]
    joint = "but" if learned_sign * retained_sign < 0 else "and"
    return f"LoRA learned {learned} {joint} forgot {forgot}"


def single_sentence(configuration: Configuration) -> str:
    """One run against the base."""
    learned, retained = numbers(configuration)
    text = f"{configuration.label} learned {span(learned)} of what it was taught and kept {span(retained)}"
    change = configuration.change("retained")
    if change is None:
        return f"{text}; there is no base run to compare with."
    base = percent(retained.value - change.value)
    words = {
        1: f"more than the base model's {base}",
        0: f"which is not measurably different from the base model's {base}",
        -1: f"less than the base model's {base}",
    }
    return f"{text}, {words[change.sign]}."


def rate_sentence(rows: Sequence[RateComparison]) -> str:
    """How often LoRA is ahead or behind at equal learning rate."""
    if not rows:
        return "No learning rate was used for both LoRA and full fine-tuning with the same recipe."
    count = len(rows)
    learned = [row.learned.sign for row in rows]
    kept = [row.retained.sign for row in rows]
    return (
        f"In {count} comparison{'s' * (count > 1)} at the same learning rate, LoRA keeps more in "
        f"{kept.count(1)}, "
        f"less in {kept.count(-1)}, undecided in {kept.count(0)}; it learns more in {learned.count(1)}, "
        f"less in {learned.count(-1)}, undecided in {learned.count(0)}."
    )


def level_sentence(row: LevelComparison) -> str:
    """What one comparison at equal learning says, or why there is none."""
    name = f"LoRA{'' if row.rank is None else f' of rank {row.rank}'}, {row.recipe} data"
    if row.difference is None:
        lora, full = (
            f"{100 * low:.0f} to {100 * high:.0f} %" for low, high in (row.lora_range, row.full_range)
        )
        return (
            f"{name}: no level of learning is reached by both (LoRA {lora}, full {full}), so it cannot "
            f"be said."
        )
    sign = row.difference.sign if row.seeds > 1 else 0
    words = {1: "LoRA keeps more", -1: "LoRA keeps less", 0: "neither keeps measurably more"}[sign]
    if row.seeds == 1:
        words = "one seed only, so no interval and no conclusion"
    gap = f"{100 * row.difference.value:+.1f} points"
    if row.seeds > 1:
        gap += f" ({100 * row.difference.low:+.1f} to {100 * row.difference.high:+.1f}, {row.seeds} seeds)"
    return f"{name}: {gap} retained where both learned equally much: {words}."


def as_rows(comparisons: Sequence[RateComparison]) -> list[dict[str, object]]:
    """For JSON and the template."""
    return [
        {
            "recipe": row.recipe,
            "learning_rate": short_rate(row.learning_rate),
            "rank": row.rank,
            "learned": row.learned.as_dict(),
            "retained": row.retained.as_dict(),
            "seeds": row.seeds,
        }
        for row in comparisons
    ]


def chance_sentence(configuration: Configuration) -> tuple[str, bool]:
    """What the control with shuffled names says, and whether it failed (names known above chance)."""
    names = configuration.summary("names")
    taught: Mapping[str, object] = configuration.runs[0].scores
    count = len(taught.get("names", ()))  # type: ignore[arg-type]
    if names is None or not count:
        return "The control has no naming questions.", False
    chance = 1 / count
    failed = names.low > chance
    tail = (
        "above chance: names leak by some other way than the picture, and the scores above cannot be trusted"
        if failed
        else "not above chance, as it must be: what the other runs know, they know from who is in the picture"
    )
    return (
        f"Taught with names shuffled over the pictures, the model names {span(names)} of held-out views "
        f"right; "
        f"chance is {percent(chance)}. This is {tail}.",
        failed,
    )


__all__ = ["at_equal_learning", "at_equal_rate", "difference", "estimate_of", "verdict"]
