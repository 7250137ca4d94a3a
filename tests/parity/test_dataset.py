"""Data file to batch, end to end: ids, targets, truncation and pictures equal the original's."""

import json
from pathlib import Path

import pytest
import torch

from llava.conversation import training_template
from llava.errors import UsageError
from llava.images import load_image, process_image
from llava.train.collator import PackingCollator
from llava.train.conversations import ConversationDataset, Encoding
from llava.train.length_grouping import length_of, modality_length_of, num_words
from llava.train.samples import read_samples
from tests.parity.golden import DATA, golden, golden_tokenizer
from tests.parity.test_images import processor

GOLDEN = golden("preprocess/dataset.json")
PIXELS_ATOL = 2e-6  # fp32; worst seen 6e-7 (mean and deviation of a picture)

NOT_COMPARED = {
    "keys": "our batch has targets, position ids and one set of pictures under names of its own",
    "warnings": "recorded as none",
}
"""Fields of a golden case that are not looked at, with the reason."""


def load_pixels(path: str, ratio: str) -> torch.Tensor:
    """A picture as training opens it."""
    return process_image(load_image(path), processor(), image_aspect_ratio=ratio)


def dataset_of(data_path: Path, version: str, max_length: int) -> ConversationDataset:
    """The training set of a data file; one placeholder per picture."""
    encoding = Encoding(training_template(version), golden_tokenizer("nonlegacy"), 1, max_length)
    return ConversationDataset(read_samples(data_path, DATA), encoding)


@pytest.mark.parametrize(
    "case", GOLDEN["cases"], ids=lambda c: f"{c['version']}-{c['image_aspect_ratio']}-{c['model_max_length']}"
)
def test_batches_are_equal(case: dict) -> None:
    compared = {"data", "version", "image_aspect_ratio", "model_max_length", "batch", "images"}
    assert set(case) == compared | {"lengths", "modality_lengths"} | set(NOT_COMPARED)
    dataset = dataset_of(DATA / case["data"], case["version"], case["model_max_length"])
    collate = PackingCollator("none", lambda path: load_pixels(path, case["image_aspect_ratio"]))
    batch, wanted = collate([dataset[index] for index in range(len(dataset))]), case["batch"]

    if "input_ids" in wanted:
        assert batch["input_ids"].tolist() == wanted["input_ids"]
    assert batch["attention_mask"].sum(1).tolist() == wanted["attention_row_sums"]
    targets = [
        [row, place - 1, batch["input_ids"][row, place].item()]
        for row, spans in enumerate(wanted["label_spans"])
        for start, end in spans
        for place in range(start, end)
    ]
    assert batch["targets"].tolist() == targets
    assert targets

    words = [num_words([text for _, text in sample.turns]) for sample in dataset.samples]
    kinds = [bool(sample.images) for sample in dataset.samples]
    pairs = list(zip(words, kinds, strict=True))
    assert [length_of(count, has_picture=kind) for count, kind in pairs] == case["lengths"]
    assert [modality_length_of(count, has_picture=kind) for count, kind in pairs] == case["modality_lengths"]

    pictures = [image for image in case["images"] if not image["all_zero"]]
    text_only = [not sample.images for sample in dataset.samples]
    assert text_only == [image["all_zero"] for image in case["images"]], (
        "a row without a picture has none here"
    )
    assert len(batch["pixel_values"]) == len(pictures)
    for pixels, image in zip(batch["pixel_values"], pictures, strict=True):
        assert list(pixels.shape) == image["shape"]
        found = torch.stack([pixels.mean(), pixels.std()])
        torch.testing.assert_close(
            found, torch.tensor([image["mean"], image["std"]]), atol=PIXELS_ATOL, rtol=0
        )


ROW = {
    "id": "a",
    "image": "images/wide.png",
    "conversations": [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}],
}
TEXT_ROW = {"id": "a", "conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]}
EDGES: dict[str, tuple[dict, str | int]] = {
    "missing_image": ({**ROW, "image": "images/none.png"}, r"id 'a'\), image: .*none\.png"),
    "image_is_list": ({**ROW, "image": ["images/wide.png"]}, 1),
    "image_none": ({**TEXT_ROW, "image": None}, 0),
    "no_conversations": ({"id": "a"}, r"id 'a'\), conversations: "),
    "text_only_multimodal": (TEXT_ROW, 0),
    "text_only_not_multimodal": (TEXT_ROW, 0),
    "absolute_image_path": (
        {**ROW, "image": str(DATA / "images" / "wide.png")},
        r"id 'a'\), image: .* is an absolute path",
    ),
}
"""A row, and the number of its pictures or what the error says of it (the original fails later, unnamed).

An absolute path is fine in the original; here pictures are confined to the image folder.
"""


def test_every_edge_of_the_original_is_known() -> None:
    assert set(EDGES) == {edge["name"] for edge in GOLDEN["edge"]}
    fine = {edge["name"] for edge in GOLDEN["edge"] if edge.get("result") == "ok"}
    refused = {name for name, (_, outcome) in EDGES.items() if isinstance(outcome, str)}
    assert fine & refused == {"absolute_image_path"}


@pytest.mark.parametrize("name", EDGES)
def test_edges(name: str, tmp_path: Path) -> None:
    row, outcome = EDGES[name]
    file = tmp_path / "data.json"
    file.write_text(json.dumps([row]), encoding="utf-8")
    if isinstance(outcome, str):
        with pytest.raises(UsageError, match=outcome):
            read_samples(file, DATA)
        return
    dataset = dataset_of(file, "v1", 2048)
    assert len(dataset[0].images) == outcome
    assert dataset[0].encoded.num_images == outcome
