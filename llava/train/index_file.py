"""The index of a large conversation file, kept in a cache folder and mapped into memory.

It is written once per machine, by whoever comes first, while the others wait, and appears under its name only
when it is complete. It is used only if its digest is right and it was made from the same content.
"""

import contextlib
import glob
import hashlib
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from llava.durable import replacing
from llava.errors import UsageError
from llava.records import DataError
from llava.train.sample_index import FORMAT, IndexWriter, SampleIndex, index_in_memory

logger = logging.getLogger(__name__)

MAGIC = b"llava-index\n"
TAIL_BYTES = hashlib.sha256().digest_size + len(MAGIC)
CACHE_NAME = ".llava_cache"
BLOCK = 1 << 22
LONGEST_STEM = 50
PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Source:
    """What an index is made from: the file, the folder of its pictures, and the code that reads them."""

    data: Path
    images: Path | None
    code: str

    @property
    def name(self) -> str:
        """The name of the index: one for each pair of file and folder, so that a new one replaces the old."""
        pair = f"{self.data.resolve()}\n{self.images}"
        return f"{self.data.stem[:LONGEST_STEM]}-{hashlib.sha256(os.fsencode(pair)).hexdigest()[:16]}.index"

    def facts(self) -> dict[str, object]:
        """What must be equal for an index to be used: the content of the file, not its time."""
        with self.data.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"format": FORMAT, "content": digest, "images": str(self.images), "code": self.code}

    def state(self) -> tuple[int, int, int]:
        """What changes when the file is written to while it is read."""
        found = self.data.stat()
        return found.st_size, found.st_mtime_ns, found.st_ino


class MappedIndex(SampleIndex):
    """A `SampleIndex` in a file; another process that is handed one maps the file itself.

    `file`, and beside it folders for what is made from the samples: they go when the index is made anew.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(np.asarray(np.memmap(file, np.uint8, mode="r"))[:-TAIL_BYTES])
        self.file = file

    def folder_beside(self, name: str) -> Path:
        """The folder of this name for what is made from the samples."""
        return self.file.with_suffix(f".{name}")

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return reopen, (self.file, self.facts)


def reopen(file: Path, facts: dict[str, object]) -> MappedIndex:
    """The index in a file, known to be whole; `UsageError` if another run has replaced it."""
    index = MappedIndex(file)
    if index.facts != facts:
        raise UsageError(f"{file} was made anew while this run used it; start the run again.")
    return index


class DigestWriter:
    """A binary file for `IndexWriter` that knows the digest of what was written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.digest = hashlib.sha256()

    def write(self, content: bytes) -> int:
        """Number of bytes written."""
        self.digest.update(content)
        return self.file.write(content)


def cached_index(
    source: Source,
    fill: Callable[[IndexWriter], dict[str, object]],
    *,
    is_current: Callable[[SampleIndex], bool],
) -> SampleIndex:
    """The kept index of `source`, or a new one that `fill` writes; in memory where nothing can be kept.

    `fill` returns facts to keep. `is_current` says whether an index of the same content is still right, for
    what lies outside of the file. `DataError` when the file cannot be read or changes meanwhile.
    """
    try:
        before, wanted = source.state(), source.facts()
    except OSError as error:
        raise DataError(f"{source.data} cannot be read ({error}); check its permissions.") from None

    def fill_and_check(writer: IndexWriter) -> dict[str, object]:
        own_facts = fill(writer)
        if source.state() != before:
            found = f"{source.data} changed while it was read"
            raise DataError(f"{found}; start again when it is written completely.")
        return own_facts | wanted

    for folder in cache_folders(source.data):
        file = folder / source.name
        index = open_index(file, wanted)
        if index is not None and is_current(index):
            return index
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with locked(file.with_suffix(".lock")) as is_locked:
                index = open_index(file, wanted)
                if index is None or not is_current(index):
                    if is_locked:
                        remove_unfinished(file)
                    logger.info(
                        "Reading %s; what is read is kept in %s for the next start.", source.data, folder
                    )
                    write_index(file, fill_and_check, mode=source.data.stat().st_mode & 0o666)
                    remove_folders_beside(file)
                    index = MappedIndex(file)
                return index
        except OSError as error:
            logger.warning("No index of %s is kept in %s: %s.", source.data, folder, error)
    return index_in_memory(fill_and_check)


def cache_folders(data: Path) -> list[Path]:
    """Where what is made from a data file is kept: beside it, else in the user's cache."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return [data.resolve().parent / CACHE_NAME, home / "llava"]


def open_index(file: Path, wanted: dict[str, object]) -> MappedIndex | None:
    """The index in a file, None if there is none, it is damaged, or made from something else."""
    try:
        if not is_whole(file):
            return None
        index = MappedIndex(file)
    except (OSError, ValueError, KeyError):
        return None
    return index if all(index.facts.get(key) == value for key, value in wanted.items()) else None


def is_whole(file: Path) -> bool:
    """Whether the digest at the end of an index is that of its content."""
    digest = hashlib.sha256()
    with file.open("rb") as content:
        left = os.fstat(content.fileno()).st_size - TAIL_BYTES
        while left > 0 and (block := content.read(min(left, BLOCK))):
            digest.update(block)
            left -= len(block)
        return left == 0 and content.read() == digest.digest() + MAGIC


def write_index(file: Path, fill: Callable[[IndexWriter], dict[str, object]], *, mode: int) -> None:
    """Write an index beside its place, then put it there in one step; `mode` says who may read it."""
    with replacing(file, mode=mode) as out:
        digested = DigestWriter(out)
        writer = IndexWriter(digested)
        writer.finish(fill(writer))
        out.write(digested.digest.digest() + MAGIC)


def remove_unfinished(file: Path) -> None:
    """Remove what a killed process left of this index; called by whoever holds its lock."""
    for left in file.parent.glob(f"{glob.escape(file.stem)}.*.unfinished"):
        left.unlink(missing_ok=True)


def remove_folders_beside(file: Path) -> None:
    """Remove what was made from the samples of the index that stood here before."""
    for folder in file.parent.glob(f"{glob.escape(file.stem)}.*/"):
        shutil.rmtree(folder, ignore_errors=True)


def digest_of(*values: object) -> str:
    """A short name for what these values, as text, stand for."""
    return hashlib.sha256("\n".join(str(value) for value in values).encode()).hexdigest()[:16]


def digest_of_code(*names: str) -> str:
    """A name for the code of these files of the package, as `train/samples.py`: what other code once made is
    not taken for its own.
    """
    return digest_of(*((PACKAGE / name).read_text(encoding="utf-8") for name in names))


@contextlib.contextmanager
def locked(file: Path) -> Iterator[bool]:
    """Wait for the lock of this name, which ends with its process; False where the system has no locks."""
    try:
        import fcntl
    except ImportError:
        yield False
        return
    with file.open("ab") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("Waiting for another process that writes %s.", file.with_suffix(".index"))
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:
            yield False
            return
        yield True
