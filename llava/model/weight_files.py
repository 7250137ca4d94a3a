"""The weight files of a checkpoint folder: which there are, and their hash. Free of torch."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from llava.errors import UsageError

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
PROJECTOR_NAME = "mm_projector.bin"
NON_LORA_NAME = "non_lora_trainables.bin"
WEIGHT_FILES = (
    (WEIGHTS_NAME, INDEX_NAME),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Names of a whole model's weights and of the index over their shards, in the order they are looked for."""
SMALL_WEIGHTS = (ADAPTER_WEIGHTS_NAME, "adapter_model.bin", NON_LORA_NAME, PROJECTOR_NAME)
HASH_CHUNK = 1 << 22


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, safetensors before `.bin`, one or the shards that an index names.

    Raises `UsageError` when there are none, or when a shard is missing.
    """
    for whole, index in WEIGHT_FILES:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            shards = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
            files = [folder / name for name in sorted(set(shards))]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise UsageError(f"{folder / index} names files that are not there: {', '.join(missing)}.")
            return files
    names = ", ".join(name for pair in WEIGHT_FILES for name in pair)
    raise UsageError(f"{folder} holds no weights (none of {names}); is it a checkpoint folder?")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model."""
    return any((folder / name).is_file() for pair in WEIGHT_FILES for name in pair)


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weight files of a checkpoint (full, adapter or projector), in a fixed order."""
    small = [folder / name for name in SMALL_WEIGHTS if (folder / name).is_file()]
    files = weight_files(folder) if has_weights(folder) or not small else small
    states = [file.stat() for file in files]
    return hash_of_files(
        tuple(files), tuple((state.st_size, state.st_mtime_ns, state.st_ino) for state in states)
    )


@lru_cache(maxsize=8)
def hash_of_files(files: tuple[Path, ...], states: tuple[tuple[int, int, int], ...]) -> str:
    """SHA-256 over files, read once as long as their `states` (bytes, time, inode) stay: every save of an
    adapter asks for its base's.
    """
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
