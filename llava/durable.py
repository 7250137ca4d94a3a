"""Files that a kill or a power cut cannot spoil: they appear whole, by one rename. No torch here."""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

BUFFER = 1 << 20
LONGEST_NAME = 200
"""Bytes of a file name to which something can still be added; systems take 255."""
NOT_ASKED_FOR = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM)
"""How systems say that they do not sync folders, or that a folder may be written but not read."""


def sync_file(file: Path) -> None:
    """Have a file's bytes on the disk, and the next reader read them from there, where that can be asked
    for.
    """
    with file.open("rb") as stream:
        os.fsync(stream.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def sync_folder(folder: Path) -> None:
    """Have a folder's entries on the disk, where the system can; `OSError` when the disk fails."""
    try:
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in NOT_ASKED_FOR:
            raise


@contextmanager
def replacing(file: Path, *, mode: int | None = None, alone: bool = False) -> Iterator[BinaryIO]:
    """A stream whose bytes stand in `file` when the block ends well; until then, and otherwise, the old ones.

    A link stays one, what it leads to is written. `mode`: who may read the file, before its first byte on;
    None: as the old one, else as usual. `alone`: nobody else writes this file, so that what a kill leaves
    beside it has a fixed name and is overwritten by the next one.
    """
    file = Path(os.path.realpath(file))
    unfinished = place_beside(file, alone=alone)
    mode = mode_of(file) if mode is None else mode
    flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if alone else os.O_EXCL)
    handle = os.open(unfinished, flags, 0o666 if mode is None else 0o600)
    try:
        with os.fdopen(handle, "wb", buffering=BUFFER) as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if mode is not None:
            unfinished.chmod(mode)
        os.replace(unfinished, file)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)


def write_whole(file: Path, content: str | bytes, *, mode: int | None = None) -> None:
    """Write a file (texts in UTF-8) as `replacing` does, and the folders above it.

    What is no plain file, as `/dev/stdout`, is written to.
    """
    content = content.encode() if isinstance(content, str) else content
    file.parent.mkdir(parents=True, exist_ok=True)
    if is_stream(file):
        file.write_bytes(content)
        return
    with replacing(file, mode=mode) as stream:
        stream.write(content)


def is_stream(file: Path) -> bool:
    """Whether a path leads to an open file of this process, a pipe, a terminal or a device."""
    if file.is_symlink() and os.path.realpath(file.parent).startswith(("/dev", "/proc")):
        return True
    return file.exists() and not file.is_file()


def place_beside(file: Path, *, alone: bool) -> Path:
    """Where a file is written before it is in its place."""
    if alone:
        return file.with_name(f"{file.name}.unfinished")
    stem = file.stem if len(os.fsencode(file.name)) < LONGEST_NAME else file.stem[: LONGEST_NAME // 4]
    return file.with_name(f"{stem}.{secrets.token_hex(4)}.unfinished")


def mode_of(file: Path) -> int | None:
    """Who may read and write a file that is there."""
    try:
        return stat.S_IMODE(file.stat().st_mode)
    except FileNotFoundError:
        return None
