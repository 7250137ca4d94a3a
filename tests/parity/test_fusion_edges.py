"""What the original does at the edges of fusion, and where this package refuses instead."""

import pytest
import torch

from llava.constants import IGNORE_INDEX
from tests.parity.golden import GoldenBatch, golden, golden_batch, open_golden, open_shared

EDGES = golden("model/fusion_edge.json")
PADDED = EDGES["padding_and_truncation"]
NAME = PADDED["model"]
LOSS_ATOL = 1e-6  # fp32: worst seen 3.0e-8


def batch() -> GoldenBatch:
    """The golden batch, pictures without the zeros that the original gives to rows without one."""
    _, model, processor, _ = open_shared(NAME)
    case = golden("model/forward.json")["variants"][NAME]["batches"][PADDED["batch"]]
    return golden_batch(case, processor, model.config.image_aspect_ratio)


def loss_of(inputs: dict) -> float:
    """Loss of the shared model."""
    with torch.no_grad():
        return open_shared(NAME)[1](**inputs).loss.item()


def test_rows_padded_on_the_left_give_the_same_loss() -> None:
    inputs = batch().as_inputs()
    order = inputs["attention_mask"].argsort(dim=1, stable=True)
    for key in ("input_ids", "attention_mask", "labels"):
        inputs[key] = inputs[key].gather(1, order)
    assert inputs["attention_mask"][:, 0].sum() < len(order), "some row must be padded"
    wanted = PADDED["cases"]["inputs_left_padded__config_right"]["loss"]
    assert loss_of(inputs) == pytest.approx(wanted, abs=LOSS_ATOL)


def test_a_list_of_pictures_is_a_stack() -> None:
    inputs = batch().as_inputs()
    inputs["images"] = list(inputs["images"])
    wanted = EDGES["edge_behaviours"]["images_as_list_of_3d"]["loss"]
    assert loss_of(inputs) == pytest.approx(wanted, abs=LOSS_ATOL)


@pytest.mark.parametrize("change", ["few", "many", "none"])
def test_counts_of_pictures_must_agree(change: str) -> None:
    """The original raises an IndexError for too few, and takes too many in silence."""
    inputs = batch().as_inputs()
    images = inputs["images"]
    inputs["images"] = {"few": images[:-1], "many": torch.cat([images, images[:1]]), "none": None}[change]
    with pytest.raises(ValueError, match="placeholders" if change == "none" else "give one picture per"):
        loss_of(inputs)


def test_a_row_without_pictures_trains_no_projector() -> None:
    """Zero gradients, and not missing ones: every rank then has the same graph."""
    _, model, _, _ = open_golden(NAME)
    model.train()
    whole = batch()
    loss = model(
        input_ids=whole.input_ids[1:2],
        labels=whole.labels[1:2],
        attention_mask=whole.attention_mask[1:2],
    ).loss
    loss.backward()
    projector = model.model.multi_modal_projector
    norms = [weight.grad.norm().item() for weight in projector.parameters()]
    wanted = EDGES["edge_behaviours"]["projector_gradient_norms_on_a_text_only_batch"].values()
    assert norms == list(wanted)
    assert (whole.labels[1] != IGNORE_INDEX).any(), "the row must have targets"
