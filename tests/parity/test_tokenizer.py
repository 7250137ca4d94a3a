"""Converted tokenizers equal raw SentencePiece, also after saving and opening again."""

import random
from pathlib import Path

import pytest
import sentencepiece

from llava.tokenizer import REPLACEMENT, decode_text, load_tokenizer
from tests.parity.golden import DATA, golden_tokenizer

PIECES = (
    " ", "  ", "\n", "\t", "a", "Hello", " world", "USER:", " ASSISTANT:", "é", "猫", "😀", "\u200b", "\xa0",
    "▁", "1234", "...", "What", " is", "'s", "#", "<", "image>", "ß", "ﬁ", "שלום", "\r\n", "°C",
)  # fmt: skip
STRINGS = 2000  # 10,000 strings were compared once: 0 differed


def strings() -> list[str]:
    """Odd texts without special tokens."""
    rng = random.Random(0)
    return ["".join(rng.choices(PIECES, k=rng.randint(1, 12))) for _ in range(STRINGS)]


def raw(name: str) -> sentencepiece.SentencePieceProcessor:
    """SentencePiece itself, with LLaMA's word boundary at the start of a text."""
    return sentencepiece.SentencePieceProcessor(
        model_file=str(DATA / "tokenizers" / name / "tokenizer.model")
    )


@pytest.mark.parametrize("name", ["nonlegacy", "legacy"])
def test_equals_sentencepiece(name: str) -> None:
    processor, tokenizer = raw(name), golden_tokenizer(name)
    for text in strings():
        assert tokenizer(text)["input_ids"] == [1, *processor.encode(text)], repr(text)


def broken_ids(rng: random.Random, processor: sentencepiece.SentencePieceProcessor) -> list[int]:
    """Words and pieces of characters: whole, cut off, and bytes in any order."""
    byte = {value: processor.piece_to_id(f"<0x{value:02X}>") for value in range(256)}
    ids: list[int] = []
    for _ in range(rng.randint(1, 6)):
        character = rng.choice("a\x19é猫😀").encode()
        cut = rng.randint(1, len(character))
        ids += rng.choice(
            [
                [byte[value] for value in character],
                [byte[value] for value in character[:cut]],
                [byte[rng.randrange(256)]],
                [rng.randrange(259, processor.get_piece_size())],
            ]
        )
    return ids


@pytest.mark.parametrize("name", ["nonlegacy", "legacy"])
def test_broken_characters_decode_as_in_sentencepiece(name: str) -> None:
    """An answer may end within a character; the whole ones before it stay."""
    processor, tokenizer = raw(name), golden_tokenizer(name)
    rng = random.Random(1)
    broken = mended = 0
    for _ in range(STRINGS):
        ids = broken_ids(rng, processor)
        found = decode_text(tokenizer, ids)
        assert found == processor.decode(ids), ids
        broken += REPLACEMENT in found
        mended += found != tokenizer.decode(ids)
    assert broken > STRINGS // 4
    assert mended > STRINGS // 10, "the backend alone must lose characters"


@pytest.mark.parametrize("name", ["nonlegacy", "legacy"])
def test_saving_changes_no_id(name: str, tmp_path: Path) -> None:
    tokenizer = golden_tokenizer(name)
    tokenizer.save_pretrained(str(tmp_path))
    again = load_tokenizer(tmp_path)
    texts = [*strings()[:300], " x</s>USER: y</s> z", "</s>a", "a </s> b"]
    assert [again(text)["input_ids"] for text in texts] == [tokenizer(text)["input_ids"] for text in texts]


def test_the_tokenizer_among_the_models_is_the_legacy_one() -> None:
    tokenizer, wanted = load_tokenizer(DATA / "models" / "tokenizer_legacy"), golden_tokenizer("legacy")
    texts = [*strings()[:100], "</s>a", "a </s> b"]
    assert [tokenizer(text)["input_ids"] for text in texts] == [wanted(text)["input_ids"] for text in texts]
