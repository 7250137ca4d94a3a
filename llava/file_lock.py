"""One process at a time: a lock that ends with its process, however that ends, and says who holds it.

The system's lock on the file counts, so that a crash leaves nothing to clean up. What the file says (process,
machine, since when) is for messages; it decides alone only where the system has no such locks. No torch here.
"""

import json
import logging
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from llava.errors import UsageError

logger = logging.getLogger(__name__)

MOST_BYTES = 4096
LARGEST_PID = (1 << 31) - 1


@dataclass(frozen=True)
class Holder:
    """Who wrote a lock's file; `since` is "" in files of earlier versions."""

    pid: int
    host: str
    since: str = ""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" + (f", since {self.since}" if self.since else "")


class FileLock:
    """The right that the file `path` stands for; a context manager.

    `in_use` and `remedy` are the words of the refusal: `IN_USE (process 7 on here, since ...); REMEDY.`
    Another lock on the same file within this process is refused as well. Processes that this one forks do not
    hold it, so that none of them outlives a killed holder with it.
    """

    def __init__(self, path: Path, *, in_use: str, remedy: str) -> None:
        self.path = path
        self.in_use = in_use
        self.remedy = remedy
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock; `UsageError` while somebody has it, `OSError` when the file cannot be written."""
        assert self._handle is None, "a lock is taken once"
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                if self._take(handle):
                    return
            except BaseException:
                os.close(handle)
                raise
            os.close(handle)  # its holder ended and removed the file between our opening and locking

    def release(self) -> None:
        """Give it back, if this process has it; the file goes first, while nobody else can have it."""
        if self._handle is not None:
            HELD.discard(self)
            try:
                self.path.unlink(missing_ok=True)
            finally:
                self._forget()

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _take(self, handle: int) -> bool:
        """Whether an open file is ours and still the one of its name; `UsageError` while somebody has it."""
        is_ours = lock_file(handle)
        before = read_holder(handle)
        if is_ours is False:
            raise UsageError(f"{self.in_use} ({before or 'another process'}); {self.remedy}.")
        if is_ours is None and before and (is_held_here(handle) or may_be_alive(before)):
            gone = f"(Is that process gone for certain? Then remove {self.path}.)"
            raise UsageError(f"{self.in_use} ({before}); {self.remedy}. {gone}")
        if not is_file_at(handle, self.path):
            return False
        if before:
            logger.warning("%s: the run before (%s) did not end in order.", self.path, before)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(asdict(this_process())).encode(), 0)
        self._handle = handle
        HELD.add(self)
        return True

    def _forget(self) -> None:
        """Close the handle; in a forked child, whose handle is a copy, the lock stays the parent's."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


HELD: set[FileLock] = set()
"""Locks that this process holds."""


def leave_to_parent() -> None:
    """In a forked child: its copies of open files would keep the locks when the parent is killed."""
    for lock in HELD:
        lock._forget()
    HELD.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=leave_to_parent)


def lock_file(handle: int) -> bool | None:
    """Whether the system lets us have the lock on an open file; None where it knows no such locks."""
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):  # another system, or a network disk without locks
        return None
    return True


def this_process() -> Holder:
    """What the file of a lock tells others."""
    return Holder(os.getpid(), socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S"))


def read_holder(handle: int) -> Holder | None:
    """Who wrote the open file of a lock last; None for an empty, torn or foreign one."""
    try:
        values = json.loads(os.pread(handle, MOST_BYTES, 0))
        pid, host, since = int(values["pid"]), str(values["host"]), str(values.get("since", ""))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    return Holder(pid, host, since) if 0 < pid <= LARGEST_PID else None


def is_file_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def is_held_here(handle: int) -> bool:
    """Whether a lock of this process is on the same file."""
    mine = os.fstat(handle)
    return any(
        os.path.samestat(mine, os.fstat(lock._handle)) for lock in list(HELD) if lock._handle is not None
    )


def may_be_alive(holder: Holder) -> bool:
    """Whether the process that a lock's file names may still run; of another machine nobody here knows.

    Our own number is that of an earlier process: in a container every run may have the same one.
    """
    if holder.host != socket.gethostname():
        return True
    if holder.pid == os.getpid():
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
