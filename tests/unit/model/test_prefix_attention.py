"""Attention in two parts equals attention over all pairs under the mask, numbers and gradients."""

import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

import llava.model.llava
from llava.model.attention import PADDING, PREFIX, dense_mask
from llava.model.lora import LoraSettings, add_lora
from llava.model.prefix_attention import NAME, attend, causal_mask, layout_of, two_part_attention
from tests.tiny import mixed_examples, tiny_model
from tests.unit.train.test_packing import assert_same, loss_and_gradients

ATOL = 5e-6  # fp32, 50 seeds: worst seen 4.8e-7 (output) and 1.9e-6 (gradients)


def random_rows(seed: int) -> tuple[Tensor, Tensor]:
    """Group and branch numbers of three rows: prefixes of two lengths and none, branches, padding."""
    rng = random.Random(seed)
    rows = []
    for _ in range(3):
        row: list[tuple[int, int]] = []
        for group in range(rng.randint(1, 3)):
            prefix, branches = rng.choice([0, 4, 7]), rng.choice([1, 2, 5])
            row += [(group, PREFIX)] * prefix
            for branch in range(1, branches + 1 if prefix else 2):
                row += [(group, branch)] * rng.randint(1, 6)
        rows.append(row)
    length = max(map(len, rows)) + 2
    padded = [[*row, *[(PADDING, PREFIX)] * (length - len(row))] for row in rows]
    numbers = torch.tensor(padded)
    return numbers[..., 0], numbers[..., 1]


@pytest.mark.parametrize("seed", range(10))
def test_two_parts_are_all_pairs_under_the_mask(seed: int) -> None:
    group_ids, branch_ids = random_rows(seed)
    generator = torch.Generator().manual_seed(seed)
    rows, length = group_ids.shape
    query, key, value = (
        torch.randn(rows, heads, length, 8, generator=generator, requires_grad=True) for heads in (4, 2, 2)
    )
    layout = layout_of(group_ids, branch_ids)
    found, _ = two_part_attention(nn.Identity(), query, key, value, None, pack_layout=layout, scaling=0.3)
    wanted = scaled_dot_product_attention(
        query, key, value, attn_mask=dense_mask(group_ids, branch_ids), scale=0.3, enable_gqa=True
    ).transpose(1, 2)
    kept = group_ids != PADDING
    torch.testing.assert_close(found[kept], wanted[kept], atol=ATOL, rtol=0)
    assert not found[~kept].any()
    weights = torch.randn(found.shape, generator=generator) * kept[..., None, None]
    for got, ideal in zip(
        torch.autograd.grad((found * weights).sum(), (query, key, value)),
        torch.autograd.grad((wanted * weights).sum(), (query, key, value)),
        strict=True,
    ):
        torch.testing.assert_close(got, ideal, atol=ATOL, rtol=0)


def test_the_rows_hold_what_matters() -> None:
    layouts = [layout_of(*random_rows(seed)) for seed in range(10)]
    assert {section.prefixes.shape[1] for layout in layouts for section in layout} == {0, 4, 7}
    assert any(len(section.owners) > len(section.prefixes) for layout in layouts for section in layout)
    assert any((~section.used).any() for layout in layouts for section in layout), "branches differ in length"


@pytest.mark.parametrize("way", ["full", "lora", "checkpointing"])
@pytest.mark.parametrize("mode", ["packed", "shared"])
def test_training_is_the_same(way: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(llava.model.llava, "LONG_ROW", 0)
    called = []
    monkeypatch.setattr(
        llava.model.llava,
        "layout_of",
        lambda *ids: called.append(1) or layout_of(*ids),  # type: ignore[func-returns-value]
    )
    examples = mixed_examples(3)
    model: nn.Module = tiny_model(3)
    if way == "lora":
        model = add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0, bias="none", train_projector=True))
    if way == "checkpointing":
        model.gradient_checkpointing_enable()  # type: ignore[operator]
    model.train()
    plain = loss_and_gradients(model, examples, "none")
    assert_same(plain, loss_and_gradients(model, examples, mode, implementation=NAME))
    assert called


def test_sixteen_bits_are_spelled_out() -> None:
    """Torch's own is the twin; largest difference seen 7.8e-3, of numbers up to 3."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(2, 3, length, 8, generator=generator).bfloat16() for length in (5, 9, 9))
    mask = causal_mask(query, key)
    assert mask[-1].all()
    assert mask[0].sum() == 5
    found = attend(query, key, value, attn_mask=mask, scale=None, dropout_p=0.0)
    wanted = scaled_dot_product_attention(query, key, value, attn_mask=mask)
    torch.testing.assert_close(found, wanted, atol=3e-2, rtol=0)
    with torch.no_grad():
        alone, _ = two_part_attention(nn.Identity(), query, query, query, None, scaling=8**-0.5)
    ideal = scaled_dot_product_attention(query, query, query, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(alone, ideal, atol=3e-2, rtol=0)
