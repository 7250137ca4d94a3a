"""Grouping by length: lengths in words, and seeded orders under torch's CPU generator."""

import pytest
import torch

from llava.errors import UsageError
from llava.train.length_grouping import (
    deal_evenly,
    length_grouped,
    length_of,
    modality_length_grouped,
    modality_length_of,
    num_words,
)
from tests.parity.golden import golden

LENGTHS = golden("train/lengths.json")
SAMPLER = golden("train/sampler.json")
PLANS = {"length_grouped": length_grouped, "modality_length_grouped": modality_length_grouped}
ORDERS = [case for case in SAMPLER["cases"] if case["fn"] in PLANS]
DEALS = [case for case in SAMPLER["cases"] if case["fn"] == "split_to_even_chunks"]


def test_every_case_is_used() -> None:
    assert len(ORDERS) + len(DEALS) == len(SAMPLER["cases"])
    assert min(len(ORDERS), len(DEALS)) > 3


def test_lengths_are_equal() -> None:
    words = [num_words([turn["value"] for turn in row["conversations"]]) for row in LENGTHS["samples"]]
    pictures = ["image" in row for row in LENGTHS["samples"]]
    pairs = list(zip(words, pictures, strict=True))
    assert [length_of(count, has_picture=has) for count, has in pairs] == LENGTHS["lengths"]
    assert [modality_length_of(count, has_picture=has) for count, has in pairs] == LENGTHS["modality_lengths"]


@pytest.mark.parametrize("number", range(len(ORDERS)))
def test_orders_are_equal(number: int) -> None:
    case = ORDERS[number]
    torch.manual_seed(case["torch_manual_seed"])
    seed = case["generator_seed"]
    order = PLANS[case["fn"]](
        case["lengths"],
        batch_size=case["batch_size"],
        world_size=case["world_size"],
        generator=None if seed is None else torch.Generator().manual_seed(seed),
    )
    assert order == case["indices"]
    assert sorted(order) == list(range(len(case["lengths"])))


@pytest.mark.parametrize("case", DEALS, ids=lambda case: f"{len(case['indices_in'])}-{case['num_chunks']}")
def test_megabatches_are_dealt_alike(case: dict) -> None:
    assert deal_evenly(case["indices_in"], case["lengths"], case["num_chunks"]) == case["chunks"]


@pytest.mark.parametrize("case", SAMPLER["errors"], ids=lambda case: case["why"])
def test_edges(case: dict) -> None:
    if "error" not in case:
        assert modality_length_grouped(case["lengths"], batch_size=2, world_size=1) == []
        return
    with pytest.raises(UsageError, match="sample 1 has no words"):
        modality_length_grouped(case["lengths"], batch_size=2, world_size=1)
