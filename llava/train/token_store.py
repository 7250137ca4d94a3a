"""Encoded samples, kept after the first encoding: tokenisation once, not once per epoch, worker and rank.

A mapped array has a slot for each sample: where its record begins, 0 if it has none. Every process appends
records to a part of its own and then sets the slot, so nobody waits for anybody. Two processes that encode
the same sample both write it, and either record is right. A record carries its sample's number and a
checksum: one that a crash or a full disk left incomplete is encoded anew.
"""

import atexit
import logging
import os
import shutil
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.processing import Encoded

logger = logging.getLogger(__name__)

HEADER = struct.Struct("<IIQ")
"""Checksum of what follows, number of words, number of the sample."""
READ_AHEAD, MOST_WORDS = 2048, 1 << 24
"""Bytes read at once, and more words than any sample has."""
OFFSET_BITS = 40
PICTURE = 0
"""The word for all tokens of a picture; that of a token `t` is `2 * (t + 1)`, one more if it is learned."""


@dataclass
class Part:
    """The file that one process appends to."""

    process: int
    number: int
    handle: int
    size: int = 0


class TokenStore:
    """Encoded samples by number, in a folder that several processes of one machine share.

    What makes tokens of a text (tokenizer, template, lengths) must be the same for all that share it.
    """

    def __init__(self, folder: Path, num_samples: int, *, num_patches: int, num_tokens: int) -> None:
        """`num_patches`: tokens of a picture; `num_tokens`: all token ids are smaller. `OSError` if the
        folder cannot be written.
        """
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder, self.num_samples, self.num_patches = folder, num_samples, num_patches
        self.dtype = np.dtype("<u2" if 2 * (num_tokens + 1) <= 1 << 16 else "<u4")
        self._open()

    def _open(self) -> None:
        handle = os.open(self.folder / "slots", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            # room on the disk is taken now: to write to a map where there is none kills a process
            os.ftruncate(handle, max(1, self.num_samples) * 8)
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle, 0, max(1, self.num_samples) * 8)
        finally:
            os.close(handle)
        self.slots = np.asarray(np.memmap(self.folder / "slots", "<u8", mode="r+"))
        self.own: Part | None = None
        self.readers: dict[int, int] = {}
        self.is_full = False

    def __getstate__(self) -> dict[str, object]:
        return {name: vars(self)[name] for name in ("folder", "num_samples", "num_patches", "dtype")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._open()

    def get(self, number: int) -> Encoded | None:
        """The sample as it was encoded; None if it is not here."""
        slot = int(self.slots[number])
        if slot == 0:
            return None
        try:
            content = self._read((slot >> OFFSET_BITS) - 1, slot & ((1 << OFFSET_BITS) - 1))
        except OSError:
            return None
        if len(content) < HEADER.size:
            return None
        checksum, _, owner = HEADER.unpack_from(content)
        if owner != number or zlib.crc32(content[4:]) != checksum:
            return None
        return unpack(np.frombuffer(content, self.dtype, offset=HEADER.size), self.num_patches)

    def _read(self, part: int, offset: int) -> bytes:
        """The record that begins there, header included, cut off where the part ends."""
        if part not in self.readers:
            self.readers[part] = os.open(self.folder / f"part-{part}", os.O_RDONLY)
        content = os.pread(self.readers[part], READ_AHEAD, offset)
        if len(content) < HEADER.size:
            return b""
        num_words = HEADER.unpack_from(content)[1]
        if num_words > MOST_WORDS:
            return b""
        size = HEADER.size + num_words * self.dtype.itemsize
        if size > len(content):
            content += os.pread(self.readers[part], size - len(content), offset + len(content))
        return content[:size] if len(content) >= size else b""

    def put(self, number: int, encoded: Encoded) -> None:
        """Keep a sample; where the disk is full, say so once and keep no more."""
        if self.is_full:
            return
        packed = pack(encoded, self.num_patches)
        assert packed.max(initial=0) <= np.iinfo(self.dtype).max, "a token id that the vocabulary lacks"
        words = packed.astype(self.dtype).tobytes()
        rest = HEADER.pack(0, len(words) // self.dtype.itemsize, number)[4:] + words
        record = zlib.crc32(rest).to_bytes(4, "little") + rest
        try:
            part = self._own_part()
            if os.write(part.handle, record) < len(record):
                raise OSError("the disk is full")
        except OSError as error:
            logger.warning("Encoded samples are no longer kept in %s: %s.", self.folder, error)
            self.is_full = True
            return
        self.slots[number] = (part.number + 1) << OFFSET_BITS | part.size
        part.size += len(record)

    def _own_part(self) -> Part:
        """The part of this process, made at its first record; a forked worker leaves its parent's alone."""
        if self.own is not None and self.own.process == os.getpid():
            return self.own
        number = len(list(self.folder.glob("part-*")))
        while True:
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                handle = os.open(self.folder / f"part-{number}", flags, 0o644)
                break
            except FileExistsError:
                number += 1
        self.own = Part(os.getpid(), number, handle)
        return self.own


def pack(encoded: Encoded, num_patches: int) -> np.ndarray:
    """Ids and labels as one word per token, and one per picture: (T,) of int64."""
    ids = np.asarray(encoded.input_ids, np.int64)
    is_picture = ids == IMAGE_TOKEN_INDEX
    words = 2 * (ids + 1) + (np.asarray(encoded.labels, np.int64) != IGNORE_INDEX)
    words[is_picture] = PICTURE
    is_first = (np.cumsum(is_picture) - 1) % num_patches == 0
    return words[~is_picture | is_first]


def unpack(words: np.ndarray, num_patches: int) -> Encoded:
    """What was packed."""
    is_picture = words == PICTURE
    num_images = int(is_picture.sum())
    tokens = words.astype(np.int64)
    if num_images:
        tokens = np.repeat(tokens, np.where(is_picture, num_patches, 1))
    ids = np.where(tokens == PICTURE, IMAGE_TOKEN_INDEX, (tokens >> 1) - 1)
    labels = np.where(tokens & 1, ids, IGNORE_INDEX)
    prefix_length = int(np.flatnonzero(tokens == PICTURE)[-1]) + 1 if num_images else 0
    return Encoded(ids.tolist(), labels.tolist(), prefix_length, num_images)


def temporary_folder() -> Path:
    """A folder that is removed when this process ends (not by its forked workers)."""
    folder = Path(tempfile.mkdtemp(prefix="llava-tokens-"))
    atexit.register(remove_own, folder, os.getpid())
    return folder


def remove_own(folder: Path, process: int) -> None:
    """Remove a folder, in the process that made it."""
    if os.getpid() == process:
        shutil.rmtree(folder, ignore_errors=True)
