"""One run at a time for an output folder. The lock is the kernel's: a crash frees it.

The file `.lock` names the process that holds it, for the message that a second run gets, and for file systems
that know no locks. Free of torch.
"""

import fcntl
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from llava.errors import UsageError

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"


@contextmanager
def locked(output_dir: Path) -> Iterator[None]:
    """Hold an output folder, making it where it is not there; `UsageError` while another run does.

    Processes that this one forks (loaders) do not hold the lock, so that none of them outlives a killed run
    with it.
    """
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        handle = take(output_dir / LOCK_NAME)
    except OSError as error:
        raise UsageError(
            f"--output_dir {output_dir} cannot be written ({error.strerror or error}); name another folder "
            "or change its permissions."
        ) from None
    try:
        yield
    finally:
        (output_dir / LOCK_NAME).unlink(missing_ok=True)
        os.close(handle)


def take(file: Path) -> int:
    """An open handle that holds the lock."""
    while True:
        handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            lock_or_refuse(handle, file)
            if is_current(handle, file):
                os.ftruncate(handle, 0)
                os.pwrite(handle, json.dumps(this_process()).encode(), 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # its holder ended and removed the file between our opening and locking


def lock_or_refuse(handle: int, file: Path) -> None:
    """Lock an open file; `UsageError` names the process that holds it."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        raise UsageError(taken_message(file, read_holder(handle))) from None
    except OSError:
        holder = read_holder(handle)  # a file system without locks: the names in the file are all there is
        if holder and (holder["host"] != socket.gethostname() or is_alive(int(str(holder["pid"])))):
            gone = f" If no such run is there, remove {file}."
            raise UsageError(taken_message(file, holder) + gone) from None
    else:
        holder = read_holder(handle)
        if holder:
            place = f"process {holder['pid']} on {holder['host']}"
            logger.warning("%s: the run before (%s) did not end in order.", file.parent, place)


def is_current(handle: int, file: Path) -> bool:
    """Whether an open file still is the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), os.stat(file))
    except FileNotFoundError:
        return False


def this_process() -> dict[str, object]:
    """What the lock file tells others."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def read_holder(handle: int) -> dict[str, object] | None:
    """Who wrote an open lock file last, None for an empty or torn one."""
    try:
        values = json.loads(os.pread(handle, 4096, 0))
        return {"pid": int(values["pid"]), "host": str(values["host"])}
    except (ValueError, KeyError, TypeError):
        return None


def is_alive(pid: int) -> bool:
    """Whether a process of this machine is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def taken_message(file: Path, holder: dict[str, object] | None) -> str:
    """The refusal."""
    who = f"process {holder['pid']} on {holder['host']}" if holder else "another process"
    return f"--output_dir {file.parent} is in use by a run ({who}); wait for it, stop it, or name another."
