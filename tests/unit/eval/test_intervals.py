"""Intervals against worked values, and what they must do at the edges."""

import math

import numpy as np
import pytest

from llava.eval.intervals import (
    Estimate,
    Tally,
    mcnemar,
    mean_of_rates,
    mean_over_units,
    over_seeds,
    rate_over_answers,
    rate_over_units,
    wilson,
)


def tallies(*rights: int, n: int = 10) -> dict[str, Tally]:
    return {f"person {k}": Tally(right, 0, n) for k, right in enumerate(rights)}


def test_wilson_gives_the_textbook_values() -> None:
    found = wilson(8, 10)
    assert (round(found.low, 3), round(found.high, 3)) == (0.490, 0.943)
    assert wilson(0, 10).low == 0.0
    assert round(wilson(0, 10).high, 3) == 0.278
    assert wilson(10, 10).high == 1.0
    with pytest.raises(ValueError, match="0 right answers out of 0"):
        wilson(0, 0)


def test_units_that_differ_widen_the_interval() -> None:
    alike, apart = rate_over_units(tallies(8, 8, 8, 8)), rate_over_units(tallies(10, 10, 10, 2))
    assert alike.value == apart.value == 0.8
    assert apart.high - apart.low > 1.5 * (alike.high - alike.low)


def test_the_interval_over_answers_covers_the_truth_as_often_as_it_says() -> None:
    rng, covered, trials = np.random.default_rng(0), 0, 200
    for seed in range(trials):
        split = {f"question {k}": Tally(int(rng.random() < 0.7), 0, 1) for k in range(60)}
        found = rate_over_answers([split], seed=seed)
        covered += found.low <= 0.7 <= found.high
    assert 0.89 <= covered / trials <= 0.99


def test_all_right_is_not_certain() -> None:
    found = rate_over_units(tallies(10, 10))
    assert found.value == found.high == 1.0
    assert found.low == pytest.approx(wilson(20, 20).low)


def test_a_difference_of_equal_runs_is_zero_with_room() -> None:
    found = rate_over_units({"a": Tally(0, 0, 10), "b": Tally(0, 0, 10)})
    assert found.value == 0.0
    assert found.sign == 0


def test_means_weigh_splits_and_units() -> None:
    first, second = tallies(10, 0), {"person 0": Tally(5, 0, 10)}
    assert mean_of_rates([first, second]).value == pytest.approx(0.5)
    assert mean_of_rates([first, second], weights=[0, 1]).value == pytest.approx(0.5)
    assert mean_of_rates([tallies(10, 10), second], weights=[3, 1]).value == pytest.approx(0.875)
    assert mean_over_units([first, second]).value == pytest.approx((0.75 + 0.0) / 2)
    with pytest.raises(ValueError, match="no answers to average"):
        mean_of_rates([{}])


def test_seeds_use_students_t_and_never_shrink_below_a_runs_own() -> None:
    apart = over_seeds([Estimate(value, value, value) for value in (0.6, 0.7, 0.8)])
    half = 4.303 * 0.1 / math.sqrt(3)
    assert (apart.low, apart.high) == (pytest.approx(0.7 - half), pytest.approx(0.7 + half))
    alike = over_seeds([Estimate(0.7, 0.5, 0.9)] * 3)
    assert (alike.low, alike.high) == (pytest.approx(0.5), pytest.approx(0.9))
    assert over_seeds([Estimate(0.9, 0.1, 1.0), Estimate(0.1, 0.0, 0.2)]).low == 0.0
    assert over_seeds([Estimate(-0.9, -0.9, -0.9), Estimate(0.9, 0.9, 0.9)], floor=-1.0).low == -1.0


def test_mcnemar_is_the_exact_binomial() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(3, 3) == 1.0
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(2 * 9 / 2**8)
