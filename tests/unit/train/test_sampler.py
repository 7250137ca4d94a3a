"""The order of samples: every index once, groups kept together, the same for every batch size."""

import random

import pytest

from llava.train.sampler import EpochSampler, PictureOrder, group_indices, plan_epoch


def keys_of(seed: int) -> list[object]:
    rng = random.Random(seed)
    return [rng.choice([None, *range(12)]) for _ in range(rng.randint(1, 90))]


def by_picture(keys: list[object], *, seed: int, global_batch: int = 1) -> EpochSampler:
    """Samples in the order by picture, four of a picture at most."""
    order = PictureOrder(keys, max_branches=4, seed=seed)
    return EpochSampler(order, num_samples=len(keys), global_batch=global_batch)


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("max_branches", [1, 3, 8])
def test_every_index_once(seed: int, max_branches: int) -> None:
    keys = keys_of(seed)
    order = plan_epoch(group_indices(keys), max_branches=max_branches, rng=random.Random(seed))
    assert sorted(order) == list(range(len(keys)))


def test_groups_stay_in_one_batch() -> None:
    keys = [number // 8 for number in range(160)]
    order = list(by_picture(keys, seed=0))
    batches = [order[start : start + 8] for start in range(0, 160, 8)]
    assert all(len({keys[index] for index in batch}) <= 2 for batch in batches)
    assert any(len({keys[index] for index in batch}) == 2 for batch in batches), "the cap must mix pictures"


def test_order_is_a_function_of_seed_and_epoch() -> None:
    sampler, twin = (by_picture(keys_of(4), seed=7) for _ in range(2))
    first = list(sampler)
    assert first == list(twin) == list(sampler)
    sampler.set_epoch(1)
    assert list(sampler) != first
    assert list(by_picture(keys_of(4), seed=8)) != first


@pytest.mark.parametrize("num_samples", [1, 7, 8, 9, 34])
def test_ranks_see_the_steps_of_one_process(num_samples: int) -> None:
    """Rank r of n gets every n-th small batch; together they are the big batch, the last one included."""
    order = list(by_picture([None] * num_samples, seed=0, global_batch=8))
    assert len(order) == len(by_picture([None] * num_samples, seed=0, global_batch=8))
    small = [order[start : start + 4] for start in range(0, len(order), 4)]
    first, second = small[0::2], small[1::2]
    assert len(first) == len(second)
    whole = list(by_picture([None] * num_samples, seed=0))
    for step, halves in enumerate(zip(first, second, strict=True)):
        present = [index for half in halves for index in half if index is not None]
        assert present == whole[8 * step : 8 * step + 8]
