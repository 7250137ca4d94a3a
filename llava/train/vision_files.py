"""Vision features on disk: one file of rows for each set of pictures, one folder for each way of seeing them.

    FOLDER/<tower, processor>/<set of pictures>.features    rows of equal size, one per picture
    FOLDER/<tower, processor>/<set of pictures>.json        type, shape, and the pictures' hashes in order

A picture is known by its bytes, so a changed one is computed anew; rows of other sets are taken over. Files
appear whole (written beside, then renamed; the JSON last), so that ranks and runs cannot disturb each other.
The folder may be deleted whenever no run uses it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch
from torch import Tensor, nn

from llava.durable import write_whole
from llava.errors import UsageError

FORMAT = 1
"""Part of every key; raise it when the meaning of the files changes."""
MOST_THREADS = 8


@dataclass(frozen=True)
class FeatureFile:
    """A complete file: where it is, the type and shape of a row, and the row of each picture's hash."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    rows: Mapping[str, int]

    def open(self) -> Tensor:
        """All rows, mapped into memory: (M, P, V); nothing is read before it is used."""
        size = len(self.rows) * torch.Size(self.shape).numel()
        mapped = torch.from_file(str(self.path), shared=False, size=size, dtype=self.dtype)
        return mapped.view(-1, *self.shape)


def tower_key(tower: nn.Module, *settings: object) -> str:
    """A hash of the tower's weights and of all `settings` (JSON values) that decide what it sees."""
    digest = hashlib.sha256(json.dumps([FORMAT, *settings], sort_keys=True, default=str).encode())
    for name, value in sorted(tower.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy())
    return digest.hexdigest()[:32]


def set_key(hashes: Iterable[str]) -> str:
    """A hash of a set of pictures."""
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()[:32]


def content_hashes(paths: Sequence[str]) -> list[str]:
    """A hash of the bytes of each picture file."""
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        return list(pool.map(content_hash, paths))


def content_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_entry(file: Path) -> FeatureFile | None:
    """The file that a JSON describes; None where one of the two is missing, unreadable or of a wrong size."""
    data = file.with_suffix(".features")
    try:
        entry = json.loads(file.read_text(encoding="utf-8"))
        dtype = getattr(torch, entry["dtype"])
        shape = tuple(int(size) for size in entry["shape"])
        rows = {name: row for row, name in enumerate(entry["pictures"])}
        size = data.stat().st_size
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    complete = isinstance(dtype, torch.dtype) and size == len(rows) * row_bytes(dtype, shape)
    return FeatureFile(data, dtype, shape, rows) if complete else None


def row_bytes(dtype: torch.dtype, shape: Sequence[int]) -> int:
    """Bytes of one picture's features."""
    return torch.Size(shape).numel() * dtype.itemsize


def known_rows(folder: Path, hashes: Iterable[str]) -> dict[str, tuple[FeatureFile, int]]:
    """Where the features of these pictures lie already, in any set of this folder."""
    wanted, found = set(hashes), {}
    for file in sorted(folder.glob("*.json")):
        entry = read_entry(file)
        if entry is not None:
            found.update({name: (entry, entry.rows[name]) for name in wanted & entry.rows.keys()})
    return found


class FeatureWriter:
    """Writes one set, row by row in any order; nothing is to be seen of it before `finish`."""

    def __init__(self, folder: Path, hashes: Sequence[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.hashes = list(hashes)
        self.path = folder / f"{set_key(hashes)}.features"
        self.unfinished = folder / f"{self.path.stem}.{uuid4().hex}.part"
        self.kind: tuple[torch.dtype, tuple[int, ...]] | None = None
        self.file: Any = self.unfinished.open("wb")

    def write(self, rows: Sequence[int], features: Tensor) -> None:
        """The features (n, P, V) of n pictures. `UsageError` when the disk is full."""
        kind = (features.dtype, tuple(features.shape[1:]))
        if self.kind is None:
            self.kind = kind
            self.check_room(row_bytes(*kind) * len(self.hashes))
        assert kind == self.kind, "all pictures have features of one shape"
        for row, one in zip(rows, features, strict=True):
            self.file.seek(row * row_bytes(*kind))
            self.file.write(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)

    def check_room(self, needed: int) -> None:
        """`UsageError` when the disk has less room than all rows take."""
        free = shutil.disk_usage(self.unfinished.parent).free
        if needed > free:
            self.discard()
            raise UsageError(
                f"--cache_vision_features disk: the features of {len(self.hashes)} pictures take "
                f"{needed / 1e9:.1f} GB, and {self.path.parent} has {free / 1e9:.1f} GB free; name another "
                "folder with --vision_cache_dir, or use --cache_vision_features off."
            )

    def finish(self) -> None:
        """Make the file visible, then its description."""
        assert self.kind is not None
        dtype, shape = self.kind
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        os.replace(self.unfinished, self.path)
        entry = {
            "dtype": str(dtype).removeprefix("torch."),
            "shape": list(shape),
            "pictures": self.hashes,
        }
        write_whole(self.path.with_suffix(".json"), json.dumps(entry))

    def discard(self) -> None:
        """Remove what was written so far."""
        self.file.close()
        self.unfinished.unlink(missing_ok=True)
