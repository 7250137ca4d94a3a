"""Ids around pictures and special tokens equal the original's, for every golden tokenizer."""

import functools
import random
import re
import shutil
from pathlib import Path

import pytest
import sentencepiece
from transformers import PreTrainedTokenizerFast
from transformers.utils import sentencepiece_model_pb2_new as sentencepiece_format

from llava.processing import tokenizer_image_token
from llava.tokenizer import load_tokenizer
from tests.parity.golden import DATA, TOKENIZERS, golden, golden_tokenizer

MODEL = DATA / "tokenizers" / "nonlegacy" / "tokenizer.model"
SPECIAL = {"<unk>": 0, "<s>": 1, "</s>": 2}
PIECES = (" ", "  ", "\n", "a", "Hello", " world", "USER:", "é", "猫", "...", *list(SPECIAL) * 2)
STRINGS = 1000  # 5,000 strings of each kind were compared once: 0 differed


def without_bos(folder: Path) -> PreTrainedTokenizerFast:
    """The golden `nobos` tokenizer: the non-legacy one that puts no <s> before a text."""
    shutil.copy(MODEL, folder)
    config = (MODEL.parent / "tokenizer_config.json").read_text(encoding="utf-8")
    changed = config.replace('"add_bos_token": true', '"add_bos_token": false')
    assert changed != config
    (folder / "tokenizer_config.json").write_text(changed, encoding="utf-8")
    return load_tokenizer(folder)


@pytest.mark.parametrize("name", [*TOKENIZERS, "nobos"])
def test_image_token_ids(name: str, tmp_path: Path) -> None:
    tokenizer = without_bos(tmp_path) if name == "nobos" else golden_tokenizer(name)
    cases = [case for case in golden("tokenize/image_token.json")["cases"] if case["tokenizer"] == name]
    for case in cases:
        assert tokenizer_image_token(case["prompt"], tokenizer) == case["ids"], case["prompt"]
        assert tokenizer(case["prompt"])["input_ids"] == case["plain_ids"], case["prompt"]
    assert cases


@pytest.mark.parametrize("name", ["nonlegacy", "legacy"])
def test_text_of_answers(name: str) -> None:
    """As the original decodes answers: without special tokens, and stripped."""
    for case in golden("tokenize/image_token.json")["decode"]:
        if case["tokenizer"] == name:
            found = golden_tokenizer(name).decode(case["ids"], skip_special_tokens=True)
            assert found.strip() == case["decode_skip_special"].strip()


@functools.cache
def raw_model(*, add_dummy_prefix: bool) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece with or without the word boundary that it puts before a text."""
    form = sentencepiece_format.ModelProto.FromString(MODEL.read_bytes())
    form.normalizer_spec.add_dummy_prefix = add_dummy_prefix
    return sentencepiece.SentencePieceProcessor(model_proto=form.SerializeToString())


def slow_ids(text: str, *, legacy: bool) -> list[int]:
    """LLaMA's slow tokenizer in words of its own: raw SentencePiece between special tokens.

    Legacy: each run has a word boundary. Non-legacy: the text has one, unless a special token follows it.
    """
    processor = raw_model(add_dummy_prefix=legacy)
    if not legacy and text and not text.startswith(tuple(SPECIAL)):
        text = "▁" + text
    ids = [1]
    for run in re.split(r"(</?s>|<unk>)", text):
        if run:
            ids += [SPECIAL[run]] if run in SPECIAL else processor.encode(run)
    return ids


@pytest.mark.parametrize("name", ["nonlegacy", "legacy"])
def test_special_tokens_in_the_text(name: str) -> None:
    rng = random.Random(1)
    texts = ["".join(rng.choices(PIECES, k=rng.randint(1, 8))) for _ in range(STRINGS)]
    assert sum(text.count("</s>") for text in texts) > STRINGS / 2
    for text in texts:
        wanted = slow_ids(text, legacy=name == "legacy")
        assert golden_tokenizer(name)(text)["input_ids"] == wanted, repr(text)
