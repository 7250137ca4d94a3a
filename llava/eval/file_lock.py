"""One writer per file: a lock that ends with its process, however that ends, and says who holds it."""

import json
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from llava.errors import UsageError

logger = logging.getLogger(__name__)


class FileLock:
    """The right to write `target`, held through the file `target.lock`.

    The system's lock on that file counts, so that a crash leaves nothing to clean up; its content (process,
    machine, since when) is for messages, and decides alone only where the system has no such locks.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.lock")
        self._handle: int | None = None

    def acquire(self) -> None:
        """Take the lock; `UsageError` when another process has it."""
        while True:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            known = read_owner(handle)
            if not self._lock(handle, known):
                os.close(handle)
                raise self._held(known)
            if is_file_at(handle, self.path):
                break
            os.close(handle)  # the one who had it has removed the file meanwhile
        if known:
            logger.warning("%s: a run that ended early left it; this one goes on.", self.path.name)
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(this_process()).encode(), 0)
        self._handle = handle

    def release(self) -> None:
        """Give it back; the file goes first, while nobody else can have it."""
        if self._handle is not None:
            self.path.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> "FileLock":
        self.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()

    def _lock(self, handle: int, known: dict[str, object]) -> bool:
        """Whether the lock is ours now."""
        try:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except (ImportError, OSError):  # a system or a network disk without locks
            return not may_be_alive(known)
        return True

    def _held(self, known: dict[str, object]) -> UsageError:
        """The error for a lock that another process has."""
        who = f"process {known.get('pid', '?')} on {known.get('host', '?')}, since {known.get('since', '?')}"
        return UsageError(
            f"{self.target} is being written by another run ({who}); wait for it or name another "
            f"--answers-file. (Is that run gone for certain? Then remove {self.path}.)"
        )


def this_process() -> dict[str, object]:
    """Who holds a lock."""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": since}


def read_owner(handle: int) -> dict[str, object]:
    """What a lock's file says; nothing when it is new or cut off."""
    try:
        owner = json.loads(os.pread(handle, 4096, 0) or b"{}")
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def is_file_at(handle: int, path: Path) -> bool:
    """Whether an open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def may_be_alive(owner: dict[str, object]) -> bool:
    """Whether the process that a lock names may still run; of another machine nobody here knows."""
    if not owner:
        return False
    if owner.get("host") != socket.gethostname():
        return True
    pid = owner.get("pid")
    if not isinstance(pid, int) or pid == os.getpid():
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
