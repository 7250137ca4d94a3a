"""The weight files of a checkpoint folder: which there are, and their hash. Free of torch."""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from llava.errors import UsageError
from llava.model_files import read_model_json

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
ADAPTER_FILES = (ADAPTER_WEIGHTS_NAME, "adapter_model.bin")
PROJECTOR_NAME = "mm_projector.bin"
NON_LORA_NAME = "non_lora_trainables.bin"
WEIGHT_FILES = (
    (WEIGHTS_NAME, INDEX_NAME),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Names of a whole model's weights and of the index over their shards, in the order they are looked for."""
SMALL_WEIGHTS = (*ADAPTER_FILES, NON_LORA_NAME, PROJECTOR_NAME)
SUFFIXES = (".safetensors", ".bin")
CONFIG_FILES = (
    "config.json", "adapter_config.json", "preprocessor_config.json", "processor_config.json",
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
)  # fmt: skip
"""What says beside the weights how a checkpoint reads texts and pictures."""
HASH_CHUNK = 1 << 22


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, safetensors before `.bin`, one or the shards that an index names.

    Raises `UsageError` when there are none, or when a shard is missing.
    """
    for whole, index in WEIGHT_FILES:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            files = [folder / name for name in shards_of(folder / index)]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise UsageError(f"{folder / index} names files that are not there: {', '.join(missing)}.")
            return files
    names = ", ".join(name for pair in WEIGHT_FILES for name in pair)
    raise UsageError(f"{folder} holds no weights (none of {names}); is it a checkpoint folder?")


def shards_of(index: Path) -> list[str]:
    """The names of the shards in an index, sorted; `UsageError` for what is no index or leads elsewhere."""
    names = read_model_json(index).get("weight_map")
    if not isinstance(names, dict) or not names or not all(isinstance(one, str) for one in names.values()):
        raise UsageError(f"{index} has no weight_map of tensors to file names; get the file again.")
    for name in names.values():
        if Path(name).name != name or Path(name).suffix not in SUFFIXES or not name.isprintable():
            raise UsageError(
                f"{index} names {name!r} as a shard; a {' or '.join(SUFFIXES)} file beside it was wanted."
            )
    return sorted(set(names.values()))


def has_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model."""
    return any((folder / name).is_file() for pair in WEIGHT_FILES for name in pair)


def is_hash(text: str) -> bool:
    """Whether a text is a SHA-256 in hexadecimal digits."""
    return len(text) == 64 and set(text) <= set("0123456789abcdef")


def adapter_file(folder: Path) -> Path:
    """An adapter's weights; the first name where there are none."""
    names = (name for name in ADAPTER_FILES if (folder / name).is_file())
    return folder / next(names, ADAPTER_FILES[0])


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weight files of a checkpoint (full, adapter or projector), in a fixed order."""
    small = [folder / name for name in SMALL_WEIGHTS if (folder / name).is_file()]
    return hash_of_files(weight_files(folder) if has_weights(folder) or not small else small)


def config_hash(folder: Path) -> str:
    """SHA-256 over the configuration, tokenizer and picture processor of a checkpoint, those that it has."""
    return hash_of_files([folder / name for name in CONFIG_FILES if (folder / name).is_file()])


def hash_of_files(files: Sequence[Path]) -> str:
    """SHA-256 over the contents of files, one after the other."""
    states = [file.stat() for file in files]
    return hash_of_states(
        tuple(files), tuple((state.st_size, state.st_mtime_ns, state.st_ino) for state in states)
    )


@lru_cache(maxsize=8)
def hash_of_states(files: tuple[Path, ...], states: tuple[tuple[int, int, int], ...]) -> str:
    """SHA-256 over files, read once as long as their `states` (bytes, time, inode) stay: every save of an
    adapter asks for its base's.
    """
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
