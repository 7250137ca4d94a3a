"""Answers on the disk: bytes are appended whole or not at all, and whole files change in one step."""

import os
from pathlib import Path

from llava.durable import replacing
from llava.errors import UsageError


def side_file(answers: Path) -> Path:
    """The file that says what an answers file depends on."""
    return Path(f"{answers}.run.json")


def append(path: Path, content: bytes) -> None:
    """Append to a file, on the disk when this returns.

    When the disk is full the file is cut back to what it was; `UsageError` says so.
    """
    try:
        with path.open("ab", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            try:
                left = memoryview(content)
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise not_written(path, error) from None


def replace_file(path: Path, content: bytes) -> None:
    """Write a file anew: whoever reads it, at whatever time, finds the old content or the new."""
    try:
        with replacing(path, alone=True) as file:
            file.write(content)
    except OSError as error:
        raise not_written(path, error) from None


def not_written(path: Path, error: OSError) -> UsageError:
    """The error for a file that the system does not take."""
    return UsageError(
        f"{path} could not be written ({error.strerror or error}); make room on the disk or check the "
        "folder's permissions. What was written before is kept, and the same command goes on from there."
    )


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file without their ends; a last one that was not finished is left out."""
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1].split(b"\n")[:-1]


def cut_torn_line(path: Path) -> bool:
    """Cut off a last line that was not finished; whether there was one."""
    content = path.read_bytes()
    good = content.rfind(b"\n") + 1
    if good == len(content):
        return False
    os.truncate(path, good)
    return True
