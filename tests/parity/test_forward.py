"""Numbers of the original's forward pass: features, embeddings, logits and losses of every golden model."""

import functools

import numpy as np
import pytest
import torch
from torch.nn import functional

from llava.model.vision_tower import encode_pictures
from tests.parity.golden import DATA, golden, golden_batch, golden_pixels, open_shared

FORWARD = golden("model/forward.json")
CASES = [(name, batch) for name, variant in FORWARD["variants"].items() for batch in variant["batches"]]
FEATURES_ATOL = 1e-5  # fp32: worst seen 2.9e-6; features of another layer differ by 3.9
LOGITS_ATOL = 2e-5  # fp32: worst seen 5.3e-6, of values up to 12.5
LOSS_ATOL = 5e-6  # fp32: worst seen 1.5e-6, of values up to 7.4
ROW_LOSS_ATOL = 5e-5  # sums up to 181: worst seen 1.6e-5


@functools.cache
def arrays() -> dict[str, np.ndarray]:
    """All golden arrays by name."""
    with np.load(DATA / "model" / "forward.npz") as file:
        return dict(file)


def array(name: str) -> torch.Tensor:
    """One golden array."""
    return torch.from_numpy(arrays()[name])


@functools.cache
def outputs(name: str, batch: str) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(loss, logits (B, T, vocabulary), which positions hold a token (B, T)) of a golden batch."""
    _, model, processor, _ = open_shared(name)
    case = FORWARD["variants"][name]["batches"][batch]
    inputs = golden_batch(case, processor, model.config.image_aspect_ratio).as_inputs()
    with torch.no_grad():
        found = model(**inputs)
    lengths = torch.tensor(case["fused"]["row_lengths"])
    valid = torch.arange(found.logits.shape[1])[None] < lengths[:, None]
    return found.loss, found.logits, valid


@pytest.mark.parametrize(("name", "batch"), CASES)
def test_losses_are_equal(name: str, batch: str) -> None:
    loss, logits, _ = outputs(name, batch)
    case = FORWARD["variants"][name]["batches"][batch]
    assert list(logits.shape) == case["forward"]["logits_shape"]
    assert loss.item() == pytest.approx(case["forward"]["loss"], abs=LOSS_ATOL)
    for row, wanted in enumerate(case["forward"]["loss_sum_per_row"]):
        places = [place for start, end in case["fused"]["label_spans"][row] for place in range(start, end)]
        targets = torch.tensor(case["fused"]["label_values"][row])
        before = logits[row, [place - 1 for place in places]]
        total = functional.cross_entropy(before, targets, reduction="sum").item()
        assert total == pytest.approx(wanted, abs=ROW_LOSS_ATOL)


def with_logits() -> list[tuple[str, str]]:
    """The cases whose logits are stored: one batch of every model at least."""
    stored = [(name, batch) for name, batch in CASES if f"{name}__{batch}__lse" in arrays()]
    assert {name for name, _ in stored} == {*FORWARD["variants"]}
    return stored


@pytest.mark.parametrize(("name", "batch"), with_logits())
def test_logits_are_equal(name: str, batch: str) -> None:
    start = f"{name}__{batch}__"
    _, logits, valid = outputs(name, batch)
    columns = array(f"{start}logits_cols")
    chosen = FORWARD["columns"] if columns.shape[-1] == 8 else [0, 1, 2, 13]
    torch.testing.assert_close(logits[..., chosen][valid], columns[valid], atol=LOGITS_ATOL, rtol=0)
    sums = logits.logsumexp(-1)
    torch.testing.assert_close(sums[valid], array(f"{start}lse")[valid], atol=LOGITS_ATOL, rtol=0)
    margin = FORWARD["variants"][name]["batches"][batch]["forward"]["min_top1_margin"]
    assert margin > 2 * LOGITS_ATOL, "a tie could break the other way"
    assert torch.equal(logits.argmax(-1)[valid], array(f"{start}argmax").long()[valid])


@pytest.mark.parametrize("name", ["llava-v1.5-tiny", "llava-v1.5-tiny-linear"])
def test_features_of_pictures_are_equal(name: str) -> None:
    _, model, processor, _ = open_shared(name)
    names = FORWARD["variants"][name]["batches"]["mixed4"]["image_order"][:2]
    pixels = golden_pixels(names, processor, model.config.image_aspect_ratio)
    with torch.no_grad():
        seen = encode_pictures(model.model.vision_tower, pixels, layer=-2, feature="patch")
        projected = model.encode_images(pixels)
    for found, what in ((seen, "vision"), (projected, "projected")):
        wanted = array(f"{name}__{what}_features")
        torch.testing.assert_close(found, wanted, atol=FEATURES_ATOL, rtol=0)


def test_fused_embeddings_are_equal() -> None:
    name = "llava-v1.5-tiny"
    _, model, processor, _ = open_shared(name)
    case = FORWARD["variants"][name]["batches"]["mixed4"]
    batch = golden_batch(case, processor, model.config.image_aspect_ratio)
    assert batch.images is not None
    with torch.no_grad():
        expanded, features = model.from_original_form(
            batch.input_ids, batch.attention_mask, images=batch.images
        )
        fused = model.fuse(expanded.input_ids, None, features)
    mask = expanded.attention_mask
    assert ["".join(map(str, row.tolist())) for row in mask] == case["fused"]["attention_mask"]
    valid = mask.bool()
    views = {"head": fused[..., :3], "mean": fused.mean(-1), "norm": fused.norm(dim=-1)}
    for what, found in views.items():
        wanted = array(f"{name}__mixed4__embeds_{what}")
        torch.testing.assert_close(found[valid], wanted[valid], atol=FEATURES_ATOL, rtol=0)
