"""What the original does at the edges of fusion, and where this package refuses instead."""

import pytest
import torch

from llava.constants import IGNORE_INDEX
from tests.parity.golden import GoldenBatch, golden, golden_batch, open_golden, open_shared, spans_of

EDGES = golden("model/fusion_edge.json")
PADDED = EDGES["padding_and_truncation"]
NAME = PADDED["model"]
LOSS_ATOL = 1e-6  # fp32: worst seen 3.0e-8


def batch() -> GoldenBatch:
    """The golden batch, pictures without the zeros that the original gives to rows without one."""
    _, model, processor, _ = open_shared(NAME)
    case = golden("model/forward.json")["variants"][NAME]["batches"][PADDED["batch"]]
    return golden_batch(case, processor, model.config.image_aspect_ratio)


def fused(side: str, *, with_positions: bool) -> tuple:
    """What the original's method gives for the golden batch, padded on one side."""
    _, model, _, _ = open_shared(NAME)
    whole = batch()
    positions = torch.arange(whole.input_ids.shape[1])[None].expand(len(whole.input_ids), -1)
    model.config.tokenizer_padding_side = side
    try:
        return model.prepare_inputs_labels_for_multimodal(
            whole.input_ids,
            positions if with_positions else None,
            whole.attention_mask.bool(),
            None,
            whole.labels,
            whole.images,
        )
    finally:
        model.config.tokenizer_padding_side = "right"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("length", ["None", "2048"])
def test_rows_are_padded_on_the_side_that_the_configuration_names(side: str, length: str) -> None:
    case = PADDED["cases"][f"padding_{side}__max_{length}"]
    ids, positions, mask, past, embeddings, labels = fused(side, with_positions=False)
    assert (ids, positions, past) == (None, None, None)
    assert list(embeddings.shape) == case["embeds_shape"]
    assert str(mask.dtype) == f"torch.{case['attention_mask_dtype']}"
    assert ["".join(str(int(value)) for value in row) for row in mask] == case["attention_mask"]
    assert [spans_of(row.tolist()) for row in labels] == case["label_spans"]
    values = [[label for label in row.tolist() if label != IGNORE_INDEX] for row in labels]
    assert values == flat_rows(case["label_values"], case["label_spans"])
    model = open_shared(NAME)[1]
    loss = model(inputs_embeds=embeddings, attention_mask=mask, labels=labels).loss.item()
    assert loss == pytest.approx(case["loss"], abs=LOSS_ATOL)


@pytest.mark.parametrize("side", ["right", "left"])
def test_nothing_is_cut_where_the_original_cuts(side: str) -> None:
    """It drops what lies behind tokenizer_model_max_length in silence, answers included; positions agree."""
    model = open_shared(NAME)[1]
    model.config.tokenizer_model_max_length = 60
    try:
        _, positions, mask, _, _, _ = fused(side, with_positions=True)
    finally:
        model.config.tokenizer_model_max_length = 2048
    whole, short = (PADDED["cases"][f"padding_{side}__max_{length}"] for length in ("None", "60"))
    assert mask.sum(dim=1).tolist() == whole["row_lengths"]
    assert max(short["row_lengths"]) == 60
    for row, wanted, kept in zip(positions, short["position_ids_when_given"], mask, strict=True):
        assert row[kept].tolist() == list(range(int(kept.sum())))
        tokens = min(60, int(kept.sum()))  # of the original's row
        start = 0 if side == "right" else len(wanted) - tokens
        assert wanted[start : start + tokens] == row[kept][:tokens].tolist()


def flat_rows(values: list, spans: list) -> list[list[int]]:
    """Golden label values of every row, however they are nested there."""
    flat = [value for row in values for value in (row if isinstance(row, list) else [row])]
    rows = []
    for row in spans:
        count = sum(end - start for start, end in row)
        rows.append(flat[:count])
        flat = flat[count:]
    return rows


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


def test_what_was_not_given_does_not_come_back() -> None:
    case = PADDED["cases"]["attention_mask_none_labels_none"]
    whole = batch()
    found = open_shared(NAME)[1].prepare_inputs_labels_for_multimodal(
        whole.input_ids, None, None, None, None, whole.images
    )
    assert found[:4] == (None, None, None, None)
    assert found[5] is case["labels"] is None
    assert list(found[4].shape) == case["embeds_shape"]


def test_a_step_of_decoding_comes_back_as_it_is() -> None:
    step = torch.tensor([[5]])
    found = open_shared(NAME)[1].prepare_inputs_labels_for_multimodal(
        step, None, None, None, None, batch().images
    )
    assert found == (step, None, None, None, None, None)
    assert found[4] is EDGES["edge_behaviours"]["single_token_input"]["returned_embeds"]


def test_pictures_with_a_dimension_more() -> None:
    """(I, n, 3, H, W): all n pictures of an entry behind one placeholder.

    The recorded loss of two each is not compared: which pictures they were is not known.
    """
    inputs = batch().as_inputs()
    assert inputs["images"] is not None
    single = inputs["images"][:, None]
    inputs["images"] = single
    wanted = EDGES["edge_behaviours"]["images_5d_one_each"]["loss"]
    assert loss_of(inputs) == pytest.approx(wanted, abs=LOSS_ATOL)
    model = open_shared(NAME)[1]
    found, _ = model.from_original_form(
        inputs["input_ids"], inputs["attention_mask"], images=single.expand(-1, 2, -1, -1, -1)
    )
    assert (
        list(found.input_ids.shape) == EDGES["edge_behaviours"]["images_5d_two_each_flat"]["embeds_shape"][:2]
    )


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
