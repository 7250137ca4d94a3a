"""The tokenizer of an export gives our ids for whole texts, pictures included, without our code."""

import copy
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from llava.model.write_hf import write_tokenizer
from llava.processing import tokenizer_image_token
from tests.parity.golden import golden_tokenizer

TEXTS = (
    "A chat. USER: <image>\nWhat is it? ASSISTANT:",
    "USER: <image>\n<image>\nBoth? ASSISTANT: Yes.</s>USER: Why? ASSISTANT:",
    "<image>USER",
    "<image> USER",
    "<image>  two blanks",
    "the end <image>",
    "<image><image><image>three",
    "no picture at all</s>USER: next</s> a blank after the end",
    "unicode: \u00e9\u4e2d\U0001f600 <image>\n\u4e2d",
    "<image>\n\n  indented\ttab",
)


@pytest.mark.parametrize("kind", ["nonlegacy", "legacy"])
def test_the_written_tokenizer_gives_our_ids_for_whole_texts(kind: str, tmp_path: Path) -> None:
    ours = golden_tokenizer(kind)
    write_tokenizer(tmp_path, ours)
    written = AutoTokenizer.from_pretrained(str(tmp_path))
    image = written.convert_tokens_to_ids("<image>")
    for text in TEXTS:
        for count in (1, 3):  # a processor repeats <image>
            repeated = text.replace("<image>", "<image>" * count)
            found = written(repeated)["input_ids"]
            wanted = tokenizer_image_token(repeated, ours, image_token_index=image)
            assert found == wanted, repeated


def test_a_plain_token_would_give_other_ids() -> None:
    """Why the written tokenizer has a normaliser of its own."""
    plain = copy.deepcopy(golden_tokenizer("nonlegacy"))
    plain.add_tokens(["<image>"], special_tokens=True)
    image = plain.convert_tokens_to_ids("<image>")
    wanted = tokenizer_image_token(TEXTS[0], golden_tokenizer("nonlegacy"), image_token_index=image)
    assert len(plain(TEXTS[0])["input_ids"]) == len(wanted) - 1
