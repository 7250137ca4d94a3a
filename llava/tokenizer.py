"""Tokenizers of checkpoints: ours as they are, SentencePiece models of LLaMA and Vicuna converted exactly.

transformers rebuilds such tokenizers in ways that change ids (a leading blank, the token after `</s>`); the
conversion here equals raw SentencePiece under both of LLaMA's conventions:

    legacy       every run of text between special tokens starts with a word boundary (LLaMA-1, Vicuna 1.3)
    non-legacy   only the start of the text does (Vicuna 1.5, LLaVA-1.5)
"""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_PATCH_TOKEN
from llava.errors import UsageError
from llava.model_files import blame, read_model_json

BOUNDARY = "▁"
TOKENIZER_JSON = "tokenizer.json"
SENTENCEPIECE_MODEL = "tokenizer.model"
CONFIG_NAME = "tokenizer_config.json"
PLAIN_CLASS = "PreTrainedTokenizerFast"
BYTE_PIECE, CONTROL_PIECES = 6, (2, 3)
"""Types of pieces in a SentencePiece model: bytes, and unknown or control pieces."""
BYTE = re.compile(r"<0x([0-9A-F]{2})>")
REPLACEMENT = "\ufffd"
"""What stands for a byte that is no text."""


class BoundaryTokenizer(PreTrainedTokenizerFast):
    """A non-legacy LLaMA tokenizer: text that starts with a blank still gets its word boundary before the
    blank.
    """

    def _encode_plus(self, text: object, text_pair: object = None, **kwargs: object) -> object:  # type: ignore[override]
        kept = [keep_blank(one) for one in text] if isinstance(text, list | tuple) else keep_blank(text)
        return super()._encode_plus(kept, text_pair, **kwargs)  # type: ignore[arg-type]

    def save_pretrained(self, save_directory: str, *args: object, **kwargs: object) -> object:
        """Save under the name of the class that every version of transformers opens."""
        result = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[arg-type]
        file = Path(save_directory) / CONFIG_NAME
        values = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": PLAIN_CLASS}
        file.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return result


def keep_blank(text: object) -> object:
    """One more blank before a text that starts with one (the backend adds a boundary only where there is
    none).
    """
    return f" {text}" if isinstance(text, str) and text.startswith((" ", BOUNDARY)) else text


def encode_with_offsets(
    tokenizer: PreTrainedTokenizerFast, text: str
) -> tuple[list[int], list[tuple[int, int]]]:
    """Ids without <s>, and where each token begins and ends in the text."""
    encoding = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    offsets = [(int(start), int(end)) for start, end in encoding["offset_mapping"]]
    if isinstance(tokenizer, BoundaryTokenizer) and keep_blank(text) != text:
        offsets = [(max(start - 1, 0), max(end - 1, 0)) for start, end in offsets]
    return list(encoding["input_ids"]), offsets


def control_ids(tokenizer: PreTrainedTokenizerFast) -> frozenset[int]:
    """Ids that steer: begin and end of text, and what else was added as a special token (but <unk>)."""
    added = tokenizer.added_tokens_decoder.items()
    return frozenset(
        index for index, token in added if token.special and token.content != tokenizer.unk_token
    )


def encode_as_text(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    """Ids of a text in which the names of control tokens are letters like all others."""
    ids = tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return list(ids)  # type: ignore[arg-type]


def decode_text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    """The text of new ids without special tokens, byte pieces as SentencePiece decodes them.

    The backend gives up every byte of a run that holds a broken character; only the broken ones are lost
    here, as when an answer is cut off within a character.
    """
    text = str(tokenizer.decode(ids, skip_special_tokens=True))
    if REPLACEMENT not in text or not isinstance(tokenizer, PreTrainedTokenizerFast):
        return text
    pieces = [str(piece) for piece in tokenizer.convert_ids_to_tokens(ids, skip_special_tokens=True)]
    joined = join_bytes(pieces)
    if joined == pieces or tokenizer.backend_tokenizer.decoder is None:
        return text
    return tokenizer.backend_tokenizer.decoder.decode(joined)


def join_bytes(pieces: Sequence[str]) -> list[str]:
    """Pieces with each run of byte pieces as one text."""
    joined, run = [], bytearray()
    for piece in pieces:
        byte = BYTE.fullmatch(piece)
        if byte is not None:
            run.append(int(byte[1], 16))
            continue
        if run:
            joined.append(text_of_bytes(bytes(run)))
            run.clear()
        joined.append(piece)
    return [*joined, text_of_bytes(bytes(run))] if run else joined


def text_of_bytes(content: bytes) -> str:
    """UTF-8 to text; each byte that is no part of a character becomes one replacement mark."""
    text = ""
    while content:
        try:
            return text + content.decode("utf-8")
        except UnicodeDecodeError as error:
            text += content[: error.start].decode("utf-8") + REPLACEMENT
            content = content[error.start + 1 :]
    return text


def starts_with_bos(tokenizer: PreTrainedTokenizerFast) -> bool:
    """Whether the tokenizer puts <s> before a text."""
    return tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a folder; a pad token that is missing is <unk>, as in LLaVA.

    Raises `UsageError` when the folder holds neither tokenizer.json nor tokenizer.model.
    """
    folder = Path(folder)
    if (folder / SENTENCEPIECE_MODEL).is_file():
        with blame(folder / SENTENCEPIECE_MODEL):
            tokenizer = convert_sentencepiece(folder)
    elif (folder / TOKENIZER_JSON).is_file():
        with blame(folder / TOKENIZER_JSON):
            tokenizer = open_fast_tokenizer(folder)
    else:
        raise UsageError(
            f"{folder} has no tokenizer: neither {TOKENIZER_JSON} nor {SENTENCEPIECE_MODEL} is there."
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.unk_token
    return tokenizer


def open_fast_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a tokenizer.json, tried once: some damage shows only when a text is encoded."""
    chosen = BoundaryTokenizer if has_first_boundary(folder / TOKENIZER_JSON) else PreTrainedTokenizerFast
    for name in (CONFIG_NAME, "special_tokens_map.json", "added_tokens.json"):
        if (folder / name).is_file():
            read_model_json(folder / name)
    tokenizer = chosen.from_pretrained(str(folder))
    ids, _ = encode_with_offsets(tokenizer, "USER: a question? ASSISTANT: an answer.\n")
    decode_text(tokenizer, [*ids, *tokenizer("Who?")["input_ids"]])
    return tokenizer


def add_image_tokens(
    tokenizer: PreTrainedTokenizerFast, *, patch: bool, start_end: bool, num_rows: int
) -> None:
    """Add the tokens of the options mm_use_im_patch_token and mm_use_im_start_end where they are missing.

    An adapter's base has a tokenizer without them. `num_rows` is the size of the model's vocabulary.
    <im_patch> stands in no prompt, so a model without a row for it does without; for the others that is a
    `UsageError`.
    """
    wanted = [DEFAULT_IMAGE_PATCH_TOKEN] if patch else []
    wanted += [DEFAULT_IM_START_TOKEN, DEFAULT_IM_END_TOKEN] if start_end else []
    missing = [token for token in wanted if token not in tokenizer.get_vocab()]
    if len(tokenizer) + len(missing) <= num_rows:
        tokenizer.add_tokens(missing, special_tokens=True)
    elif start_end and {*missing} != {DEFAULT_IMAGE_PATCH_TOKEN}:
        raise UsageError(
            f"mm_use_im_start_end is set, but the vocabulary of {num_rows} has no room for "
            f"{', '.join(missing)} behind the tokenizer's {len(tokenizer)}; use the tokenizer it was tuned "
            "with."
        )


def has_first_boundary(file: Path) -> bool:
    """Whether a tokenizer.json puts a word boundary at the start of the text only."""
    steps = read_model_json(file).get("pre_tokenizer") or {}
    return steps.get("type") == "Metaspace" and steps.get("prepend_scheme") == "first"


def convert_sentencepiece(folder: Path) -> PreTrainedTokenizerFast:
    """A LLaMA tokenizer.model (BPE with byte fallback) with its config as an exact fast tokenizer."""
    from tokenizers import AddedToken

    file = folder / CONFIG_NAME
    config = read_model_json(file) if file.is_file() else {}
    legacy = config.get("legacy", True)
    backend, special = backend_of(folder / SENTENCEPIECE_MODEL, legacy=legacy)
    unk, bos, eos = special
    extra = added_tokens(folder, config)
    backend.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in (*special, *extra)]
    )
    set_bos(backend, bos if config.get("add_bos_token", True) else None)
    chosen = PreTrainedTokenizerFast if legacy else BoundaryTokenizer
    return chosen(
        tokenizer_object=backend,
        unk_token=unk,
        bos_token=bos,
        eos_token=eos,
        pad_token=token_text(config.get("pad_token")),
        model_max_length=config.get("model_max_length") or 2048,
        padding_side=config.get("padding_side", "right"),
        clean_up_tokenization_spaces=False,
    )


def token_text(token: object) -> str | None:
    """The text of a token that a config gives as a string or as a dictionary."""
    return token.get("content") if isinstance(token, dict) else token  # type: ignore[return-value]


def added_tokens(folder: Path, config: dict) -> list[str]:
    """Tokens added behind the SentencePiece vocabulary, in the order of their ids."""
    found = {int(key): token_text(value) for key, value in config.get("added_tokens_decoder", {}).items()}
    file = folder / "added_tokens.json"
    if file.is_file():
        found |= {index: text for text, index in read_model_json(file).items()}
    return [str(text) for _, text in sorted(found.items())]


def backend_of(model: Path, *, legacy: bool) -> tuple[object, tuple[str, str, str]]:
    """The `tokenizers` object of a SentencePiece BPE model, and its unknown, begin and end pieces."""
    import sentencepiece
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers.convert_slow_tokenizer import generate_merges

    processor = sentencepiece.SentencePieceProcessor(model_file=str(model))
    size = processor.get_piece_size()
    pieces = [processor.id_to_piece(index) for index in range(size)]
    plain = {
        pieces[index]: processor.get_score(index)
        for index in range(size)
        if not (processor.is_byte(index) or processor.is_control(index) or processor.is_unknown(index))
    }
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    merges = generate_merges(vocabulary, plain)
    merges = [pair for pair in merges if pair[0] in plain and pair[1] in plain]
    unk = pieces[processor.unk_id()]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token=unk, fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", BOUNDARY)
    if legacy:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend(BOUNDARY), replace])
    else:
        backend.normalizer = replace
        backend.pre_tokenizer = pre_tokenizers.Metaspace(
            replacement=BOUNDARY, prepend_scheme="first", split=False
        )
    backend.decoder = decoders.Sequence(
        [decoders.Replace(BOUNDARY, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return backend, (unk, pieces[processor.bos_id()], pieces[processor.eos_id()])


def set_bos(backend: object, bos: str | None) -> None:
    """Put <s> before every text, or nothing."""
    from tokenizers import processors

    if bos is None:
        return
    index = backend.token_to_id(bos)  # type: ignore[attr-defined]
    backend.post_processor = processors.TemplateProcessing(  # type: ignore[attr-defined]
        single=f"{bos} $A", pair=f"{bos} $A {bos} $B", special_tokens=[(bos, index)]
    )
