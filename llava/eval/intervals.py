"""Intervals for shares of right answers: bootstrap over identities, Wilson without identities, t over seeds.

The unit is the identity, not the picture: ten pictures of one person are not ten independent trials. So
identities are drawn with replacement first, then the answers within each (a two-level bootstrap).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 10_000
Z_975 = 1.959964
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
"""97.5 % points of Student's t for 1, 2, ... 30 degrees of freedom."""


@dataclass(frozen=True)
class Estimate:
    """A share (0 to 1) or a difference of shares (-1 to 1) with its 95 % interval."""

    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """For JSON, rounded to a hundredth of a point."""
        return {"value": round(self.value, 4), "low": round(self.low, 4), "high": round(self.high, 4)}

    @property
    def sign(self) -> int:
        """Of a difference: +1 or -1 when the interval lies on one side of zero, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0


@dataclass(frozen=True)
class Tally:
    """Answers of one unit in one split: `plus` of `n` count +1 and `minus` count -1.

    For the answers of one run, plus = right and minus = 0; for two runs on the same questions, plus = only
    the first is right and minus = only the second is.
    """

    plus: int
    minus: int
    n: int

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.plus + other.plus, self.minus + other.minus, self.n + other.n)


Units = Mapping[str, Tally]
"""One split: unit (an identity, or a question that belongs to nobody) -> its tally."""


def wilson(correct: int, n: int) -> Estimate:
    """Wilson's score interval of `correct` out of `n` independent answers. `ValueError` for n = 0."""
    if not 0 <= correct <= n or n == 0:
        raise ValueError(f"{correct} right answers out of {n}; wanted 0 <= right <= n and n >= 1.")
    share, z2 = correct / n, Z_975**2
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_975 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    return Estimate(share, low, 1.0 if correct == n else min(1.0, centre + half))


def rate_over_units(units: Units, *, seed: int = 0) -> Estimate:
    """All answers of one split (or the difference of two runs on it), by bootstrap over its units."""
    return mean_of_rates([units], seed=seed)


def mean_of_rates(
    splits: Sequence[Units], *, weights: Sequence[float] | None = None, seed: int = 0
) -> Estimate:
    """Mean (by `weights`) over splits of each split's rate; a unit is drawn for all its splits together.

    `ValueError` for a split without answers.
    """
    if not splits or not all(splits):
        raise ValueError("no answers to average; give at least one split, and only splits with answers.")
    names = sorted({name for units in splits for name in units})
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(names), size=(DRAWS, len(names)))
    rates = []
    for units in splits:
        plus, minus, n = arrays(units, names)
        drawn = draw(rng, plus[chosen], minus[chosen], n[chosen]).sum(axis=1)
        total = n[chosen].sum(axis=1)
        rates.append(np.where(total > 0, drawn / np.maximum(total, 1), (plus - minus).sum() / n.sum()))
    tallies = [pooled(units) for units in splits]
    value = float(np.average([rate_of(tally) for tally in tallies], weights=weights))
    return interval(value, np.average(rates, axis=0, weights=weights), tallies)


def mean_over_units(splits: Sequence[Units], *, seed: int = 0) -> Estimate:
    """Macro mean: each unit's mean over the splits it is in, then the mean over units."""
    splits = [units for units in splits if units]
    if not splits:
        raise ValueError("no answers to average; give at least one split with answers.")
    names = sorted({name for units in splits for name in units})
    rng = np.random.default_rng(seed)
    chosen = rng.integers(len(names), size=(DRAWS, len(names)))
    sums, own, present = np.zeros(chosen.shape), np.zeros(len(names)), np.zeros(len(names))
    for units in splits:
        plus, minus, n = arrays(units, names)
        sums += draw(rng, plus[chosen], minus[chosen], n[chosen]) / np.maximum(n[chosen], 1)
        own += (plus - minus) / np.maximum(n, 1)
        present += n > 0
    value = float(np.mean(own / present))
    draws = (sums / present[chosen]).mean(axis=1)
    return interval(value, draws, [pooled(units) for units in splits])


def rate_over_answers(splits: Sequence[Units], *, seed: int = 0) -> Estimate:
    """Mean over splits of each split's rate, by bootstrap over the answers within each split."""
    rng = np.random.default_rng(seed)
    tallies = [pooled(units) for units in splits if units]
    if not tallies:
        raise ValueError("no answers to average; give at least one split with answers.")
    rates = [
        draw(rng, np.full(DRAWS, tally.plus), np.full(DRAWS, tally.minus), np.full(DRAWS, tally.n)) / tally.n
        for tally in tallies
    ]
    return interval(float(np.mean([rate_of(tally) for tally in tallies])), np.mean(rates, axis=0), tallies)


def arrays(units: Units, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plus, minus and n per unit, zeros where a unit is not in the split."""
    rows = [units.get(name, Tally(0, 0, 0)) for name in names]
    return tuple(np.array([getattr(row, key) for row in rows]) for key in ("plus", "minus", "n"))  # type: ignore[return-value]


def draw(rng: np.random.Generator, plus: np.ndarray, minus: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Resample each unit's answers: plus - minus among n draws (two binomials make a trinomial)."""
    at_least = np.maximum(n, 1)
    up = rng.binomial(n, plus / at_least)
    if not minus.any():
        return up
    share = np.minimum(minus / np.maximum(n - plus, 1), 1.0)
    return up - rng.binomial(n - up, share)


def pooled(units: Units) -> Tally:
    """All units of a split together."""
    return sum(units.values(), Tally(0, 0, 0))


def rate_of(tally: Tally) -> float:
    """(plus - minus) / n."""
    return (tally.plus - tally.minus) / tally.n


def interval(value: float, draws: np.ndarray, tallies: Sequence[Tally]) -> Estimate:
    """The percentile interval; Wilson's where all answers agree, so that resampling shows no spread at
    all.
    """
    total = sum(tallies, Tally(0, 0, 0))
    if total.minus == 0 and total.plus in (0, total.n):
        return Estimate(value, *bounds(wilson(total.plus, total.n)))
    low, high = np.percentile(draws, [2.5, 97.5])
    if low == high:
        room = wilson(0, total.n).high
        return Estimate(value, value - room, value + room)
    return Estimate(value, float(min(low, value)), float(max(high, value)))


def bounds(estimate: Estimate) -> tuple[float, float]:
    """Low and high."""
    return estimate.low, estimate.high


def over_seeds(estimates: Sequence[Estimate], *, floor: float = 0.0) -> Estimate:
    """Mean over runs that differ in their seed, with a t-interval cut to [floor, 1].

    Never narrower than the runs' own intervals on average: seeds that agree by chance (or test the same
    people) do not show how far other people would be off. One run keeps its own interval.
    """
    count = len(estimates)
    values = np.array([estimate.value for estimate in estimates])
    low = float(np.mean([estimate.low for estimate in estimates]))
    high = float(np.mean([estimate.high for estimate in estimates]))
    mean = float(values.mean())
    if count > 1:
        half = t_975(count - 1) * float(values.std(ddof=1)) / math.sqrt(count)
        low, high = min(low, mean - half), max(high, mean + half)
    return Estimate(mean, max(floor, low), min(1.0, high))


def t_975(degrees: int) -> float:
    """97.5 % point of Student's t."""
    return T_975[degrees - 1] if degrees <= len(T_975) else Z_975


def mcnemar(lost: int, gained: int) -> float:
    """Exact two-sided p of McNemar's test: `lost` answers turned from right to wrong, `gained` the other
    way.
    """
    n = lost + gained
    if n == 0:
        return 1.0
    tail = sum(math.comb(n, k) for k in range(min(lost, gained) + 1)) / 2**n
    return min(1.0, 2 * tail)
