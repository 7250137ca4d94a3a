"""Golden data recorded from the original LLaVA, as the tests read it."""

import functools
import json
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from llava.constants import IGNORE_INDEX
from llava.tokenizer import load_tokenizer

DATA = Path(__file__).resolve().parents[1] / "data" / "parity"
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
