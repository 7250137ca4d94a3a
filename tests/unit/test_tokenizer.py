"""Folders with tokenizers: which file is read, what is kept, what is refused, and offsets into the text."""

import json
import shutil
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from llava.errors import UsageError
from llava.tokenizer import encode_with_offsets, load_tokenizer, starts_with_bos
from tests.parity.golden import DATA, golden_tokenizer

MODEL = DATA / "tokenizers" / "nonlegacy" / "tokenizer.model"


def folder_with(path: Path, **config: object) -> Path:
    """A folder with the small SentencePiece model and a tokenizer_config.json."""
    shutil.copy(MODEL, path / "tokenizer.model")
    (path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return path


def own_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer.json of another make (bytes only), saved in a folder."""
    specials = ["<unk>", "<s>", "</s>"]
    words = specials + [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "a", "b"]
    vocabulary = {word: index for index, word in enumerate(words)}
    backend = Tokenizer(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.save_pretrained(str(folder))
    return tokenizer


def test_a_tokenizer_json_of_our_own_is_loaded_as_it_is(tmp_path: Path) -> None:
    tokenizer = own_tokenizer(tmp_path)
    text = " a  b 猫</s>a"
    loaded = load_tokenizer(tmp_path)
    assert loaded(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (
        json.loads(loaded.backend_tokenizer.to_str())["model"]
        == json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    )
    assert loaded.pad_token == "<unk>"


def test_legacy_is_the_default_and_changes_what_follows_a_special_token(tmp_path: Path) -> None:
    boundary = golden_tokenizer("legacy").convert_tokens_to_ids("▁")
    old = load_tokenizer(folder_with(tmp_path))("x</s>USER")["input_ids"]
    new = golden_tokenizer("nonlegacy")("x</s>USER")["input_ids"]
    assert boundary in old[old.index(2) :]
    assert boundary not in new[new.index(2) :]


@pytest.mark.parametrize("add_bos", [True, False])
def test_bos_as_the_config_says(tmp_path: Path, add_bos: bool) -> None:
    tokenizer = load_tokenizer(folder_with(tmp_path, legacy=False, add_bos_token=add_bos))
    assert starts_with_bos(tokenizer) == add_bos
    assert tokenizer("")["input_ids"] == [1] * add_bos


def test_pad_token_of_the_file_is_kept_else_it_is_unk(tmp_path: Path) -> None:
    assert golden_tokenizer("nonlegacy").pad_token == "<unk>"
    tokenizer = load_tokenizer(folder_with(tmp_path, pad_token={"content": "</s>"}))
    assert tokenizer.pad_token == "</s>"


def test_added_tokens_keep_their_ids() -> None:
    tokenizer = golden_tokenizer("imse")
    assert tokenizer.convert_tokens_to_ids(["<im_start>", "<im_end>"]) == [1000, 1001]
    assert tokenizer("a<im_end>")["input_ids"][-1] == 1001


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither tokenizer\.json nor tokenizer\.model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("name", ["nonlegacy", "legacy"])
@pytest.mark.parametrize(
    "text", ["Hello there", " leading", "  two", "a</s>b", "▁x", "猫 é", "\n", "x  ", ""]
)
def test_offsets_point_into_the_text(name: str, text: str) -> None:
    tokenizer = golden_tokenizer(name)
    ids, offsets = encode_with_offsets(tokenizer, text)
    assert ids == tokenizer(text)["input_ids"][1:]
    assert all(0 <= start <= end <= len(text) for start, end in offsets)
    assert offsets == sorted(offsets)
    covered = {place for start, end in offsets for place in range(start, end)}
    assert covered == set(range(len(text)))
