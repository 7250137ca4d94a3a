"""Order by length: a pure function of seed and epoch, equal on all ranks, and taken up after an
interruption.
"""

import random
import shutil
from pathlib import Path

import pytest
import torch

from llava.train.recipe import choose_sampler
from llava.train.sampler import EpochSampler, LengthOrder, PictureOrder
from llava.train.samples import Sample
from tests.parity.training import run_training, working_folder


def order_of(seed: int = 0, *, by_modality: bool = True, num_samples: int = 37) -> LengthOrder:
    """An order of random lengths, a third of them without a picture."""
    rng = random.Random(num_samples)
    lengths = [rng.randint(1, 60) * rng.choice([1, 1, -1]) for _ in range(num_samples)]
    return LengthOrder(lengths, by_modality, batch_size=4, world_size=2, seed=seed)


def test_order_is_a_function_of_seed_and_epoch() -> None:
    first = order_of()(0)
    assert sorted(first) == list(range(37))
    assert first == order_of()(0)
    assert order_of()(1) != first
    assert order_of(seed=1)(0) != first
    assert order_of(by_modality=False)(0) != first


def test_other_random_numbers_neither_matter_nor_change() -> None:
    torch.manual_seed(3)
    wanted, order = torch.rand(2), order_of()(0)
    torch.manual_seed(3)
    assert torch.equal(torch.rand(1), wanted[:1])
    assert order_of()(0) == order
    assert torch.equal(torch.rand(1), wanted[1:])


def test_batches_hold_one_kind_and_ranks_share_the_work() -> None:
    order = order_of(num_samples=400)
    indices = order(0)
    steps = [indices[start : start + 8] for start in range(0, 400, 8)]
    kinds = [len({order.lengths[index] > 0 for index in step}) for step in steps]
    assert max(kinds[:-2]) == 1

    def unevenness(step: list[int]) -> int:
        """How many words more one rank has than the other."""
        words = [abs(order.lengths[index]) for index in step]
        return abs(sum(words[:4]) - sum(words[4:]))

    rng = random.Random(0)
    by_chance = sum(unevenness(rng.sample(step, 8)) for step in steps[:-2])
    assert sum(map(unevenness, steps[:-2])) < by_chance / 4


@pytest.mark.parametrize("by_modality", [True, False])
def test_ranks_and_accumulation_see_the_steps_of_one_process(by_modality: bool) -> None:
    """The samples of a step depend on the global batch only, not on how it is shared out."""
    order = order_of(by_modality=by_modality, num_samples=101)
    shares = [
        LengthOrder(order.lengths, by_modality, batch_size=8 // world, world_size=world, seed=0)(0)
        for world in (1, 2, 4)
    ]
    assert shares[0] != shares[1], "within a step the order must differ"
    steps = [[sorted(share[start : start + 8]) for start in range(0, 101, 8)] for share in shares]
    assert steps[0] == steps[1] == steps[2]


def test_the_last_step_is_filled_up() -> None:
    sampler = EpochSampler(order_of(), num_samples=37, global_batch=8)
    order = list(sampler)
    assert len(order) == len(sampler) == 40
    assert order[37:] == [None] * 3


class Args:
    """What the choice of the order depends on."""

    seed, data_seed, max_branches = 1, None, 8
    train_batch_size, world_size, gradient_accumulation_steps = 4, 2, 3

    def __init__(self, packing: str, *, by_modality: bool = False, by_length: bool = False) -> None:
        self.packing = packing
        self.group_by_modality_length = by_modality
        self.group_by_length = by_length


SAMPLES = [
    Sample("a", 0, ("a.png",), (("human", "<image>\nWho is this?"), ("gpt", "Mira"))),
    Sample("b", 1, (), (("human", "Who is  the baker?"), ("gpt", "Otto"))),
]


@pytest.mark.parametrize(
    ("flags", "lengths"),
    [
        ({"by_modality": True}, [5, -5]),
        ({"by_length": True}, [133, 5]),
        ({"by_modality": True, "by_length": True}, [5, -5]),
    ],
)
def test_without_packing_the_flags_choose_the_order(flags: dict[str, bool], lengths: list[int]) -> None:
    sampler = choose_sampler(SAMPLES, Args("none", **flags))  # type: ignore[arg-type]
    assert isinstance(sampler.order, LengthOrder)
    assert sampler.order.lengths == lengths
    assert (sampler.order.batch_size, sampler.order.world_size, sampler.order.seed) == (4, 6, 1)
    assert sampler.num_fillers == 6


@pytest.mark.parametrize("packing", ["packed", "shared"])
def test_with_packing_pictures_choose_the_order(packing: str) -> None:
    sampler = choose_sampler(SAMPLES, Args(packing, by_modality=True, by_length=True))  # type: ignore[arg-type]
    assert isinstance(sampler.order, PictureOrder)
    assert isinstance(choose_sampler(SAMPLES, Args("none")).order, PictureOrder)  # type: ignore[arg-type]


@pytest.mark.parametrize("loader", [("--dataloader_num_workers", "0"), ()], ids=["no workers", "default"])
def test_an_interrupted_run_goes_on_in_the_same_order(
    loader: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = tmp_path / "models"
    models.mkdir()
    monkeypatch.chdir(working_folder(models))
    argv = [
        *(
            "--model_name_or_path",
            "llava-v1.5-tiny",
            "--data_path",
            "data/traj8.json",
            "--image_folder",
            "data",
        ),
        *("--packing", "none", "--group_by_modality_length", "True", "--per_device_train_batch_size", "2"),
        *("--max_steps", "6", "--logging_steps", "1", "--learning_rate", "1e-3", "--seed", "5"),
        *("--save_strategy", "steps", "--save_steps", "3"),
        *loader,
    ]
    whole = run_training(argv, tmp_path / "whole", monkeypatch)
    cut = tmp_path / "cut"
    shutil.copytree(tmp_path / "whole" / "checkpoint-3", cut / "checkpoint-3")
    resumed = run_training(argv, cut, monkeypatch)
    assert len(resumed.rates) == 3, "it must have gone on from the third step"
    assert resumed.losses == whole.losses
    assert all(torch.equal(whole.weights[key], resumed.weights[key]) for key in whole.weights)
    random_order = run_training(argv[:6] + argv[10:], tmp_path / "other", monkeypatch)
    assert random_order.losses != whole.losses
