"""Golden data recorded from the original LLaVA, as the tests read it."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from llava.constants import IGNORE_INDEX
from llava.model.builder import load_pretrained_model
from llava.processing import load_image, process_image
from llava.tokenizer import load_tokenizer

DATA = Path(__file__).resolve().parents[1] / "data" / "parity"
PAD_ID = 0
TOKENIZERS = ("nonlegacy", "legacy", "imse")


def golden(name: str) -> dict:
    """One JSON file of the golden data."""
    return json.loads((DATA / name).read_text(encoding="utf-8"))


@functools.cache
def golden_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """A tokenizer of the golden data, converted from its SentencePiece model."""
    return load_tokenizer(DATA / "tokenizers" / name)


def spans_of(labels: list[int]) -> list[list[int]]:
    """[start, end) runs of labels that carry loss."""
    spans: list[list[int]] = []
    for place, label in enumerate(labels):
        if label == IGNORE_INDEX:
            continue
        if spans and spans[-1][1] == place:
            spans[-1][1] += 1
        else:
            spans.append([place, place + 1])
    return spans


def golden_folder(name: str) -> Path:
    """The folder of a golden model."""
    return DATA / "models" / name


BASES = {"llava-v1.5-tiny-pretrain": "tiny-vicuna-v1.5", "llava-v1.5-tiny-lora": "tiny-vicuna-v1.5"}
"""What --model-base names for the checkpoints that are not whole."""


def open_golden(name: str) -> tuple:
    """(tokenizer, model, image processor, context) of a golden model, new each time."""
    base = BASES.get(name)
    return load_pretrained_model(str(golden_folder(name)), str(golden_folder(base)) if base else None)


open_shared = functools.cache(open_golden)
"""The same for tests that leave the model as it is."""


def golden_pixels(names: list[str], image_processor: Any, ratio: str) -> torch.Tensor:
    """Golden pictures to (I, 3, H, W); `<zeros>` is what the original puts where a row has no picture."""
    side = image_processor.crop_size["height"]
    pictures = [
        torch.zeros(3, side, side)
        if name == "<zeros>"
        else process_image(
            load_image(DATA / "images" / f"{name}.png"), image_processor, image_aspect_ratio=ratio
        )
        for name in names
    ]
    return torch.stack(pictures)


@dataclass(frozen=True)
class GoldenBatch:
    """A batch in the original calling form: ids with one -200 per picture, and the pictures."""

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor
    images: torch.Tensor | None

    def as_inputs(self) -> dict[str, torch.Tensor | None]:
        """Arguments of the model."""
        return dict(vars(self))


def golden_batch(case: dict, image_processor: Any, ratio: str) -> GoldenBatch:
    """A batch of model/forward.json; the zeros of rows without a picture are left out, ours need none."""
    ids = torch.tensor(case["input_ids"])
    labels = torch.full_like(ids, IGNORE_INDEX)
    for row, spans in enumerate(case["label_spans"]):
        for start, end in spans:
            labels[row, start:end] = ids[row, start:end]
    names = [name for name in case["image_order"] if name != "<zeros>"]
    images = golden_pixels(names, image_processor, ratio) if names else None
    return GoldenBatch(ids, ids.ne(PAD_ID).long(), labels, images)
