"""Dealing a step's samples to ranks: each once, the same samples per step for any number of ranks, as evenly
as tokens allow.
"""

import random

import numpy as np
import pytest

from llava.train.sampler import EpochSampler, PictureOrder
from llava.train.step_batches import StepBatches, TokenCosts, deal, deal_in_turn, imbalance


def costs_of(seed: int, num_samples: int = 203) -> tuple[TokenCosts, list[int | None]]:
    """Groups of up to twelve questions per picture, text alone, long and short; and the groups by sample."""
    rng = random.Random(seed)
    groups = [rng.choice([-1, *range(30)]) for _ in range(num_samples)]
    own = np.array([rng.choice([20, 60, 400]) + rng.randrange(20) for _ in groups], float)
    prefix = np.array([611.0 if group >= 0 else 0.0 for group in groups])
    return TokenCosts(own, prefix, np.array(groups)), [None if group < 0 else group for group in groups]


def batches_of(seed: int, num_ranks: int) -> tuple[StepBatches, TokenCosts]:
    """A global batch of 24 dealt to ranks."""
    costs, keys = costs_of(seed)
    order = PictureOrder(keys, max_branches=8, seed=seed)
    sampler = EpochSampler(order, num_samples=len(keys), global_batch=24)
    return StepBatches(sampler, batch_size=24 // num_ranks, num_ranks=num_ranks, costs=costs), costs


def steps_of(batches: StepBatches) -> list[list[list[int | None]]]:
    """Batches by step, those of all ranks."""
    flat, num = list(batches), batches.num_ranks
    assert len(flat) == len(batches)
    return [flat[start : start + num] for start in range(0, len(flat), num)]


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
@pytest.mark.parametrize("seed", range(5))
def test_steps_hold_the_samples_of_one_process(seed: int, num_ranks: int) -> None:
    single = steps_of(batches_of(seed, 1)[0])
    dealt = steps_of(batches_of(seed, num_ranks)[0])
    for (whole,), ranks in zip(single, dealt, strict=True):
        together = [index for batch in ranks for index in batch if index is not None]
        assert sorted(together) == sorted(index for index in whole if index is not None)
    assert dealt == steps_of(batches_of(seed, num_ranks)[0]), "every rank must find the same plan"
    assert sorted(index for step in dealt for batch in step for index in batch if index is not None) == [
        *range(203)
    ]


@pytest.mark.parametrize("num_ranks", [2, 3, 8])
def test_ranks_get_about_as_many_tokens(num_ranks: int) -> None:
    found, in_turn = [], []
    for seed in range(5):
        batches, costs = batches_of(seed, num_ranks)
        steps = list(batches.micro_steps())
        found.append(imbalance([batches.dealt(step) for step in steps], costs))
        in_turn.append(imbalance([deal_in_turn(step, num_ranks) for step in steps], costs))
    assert np.mean(found) < 0.5 * np.mean(in_turn)


def test_a_group_is_split_only_where_that_helps() -> None:
    costs = TokenCosts(np.full(8, 60.0), np.full(8, 611.0), np.zeros(8, int))
    assert [len(batch) for batch in deal([*range(8)], 2, costs)] == [4, 4], "two prefixes beat a rank at rest"
    both = TokenCosts(np.full(8, 60.0), np.full(8, 611.0), np.repeat([0, 1], 4))
    assert deal([0, 4, 1, 5, 2, 6, 3, 7], 2, both) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_rank_without_samples_gets_an_empty_batch() -> None:
    costs, _ = costs_of(0)
    assert deal([5, None, None, None], 2, costs) == [[5], [None]]


def test_one_rank_sees_the_order_as_it_is() -> None:
    batches, _ = batches_of(1, 1)
    assert [index for batch in batches for index in batch] == list(batches.sampler)
