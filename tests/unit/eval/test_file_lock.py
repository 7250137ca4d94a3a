"""The lock on an answers file: one holder, a crash frees it, a clean end leaves nothing."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval import file_lock
from llava.eval.file_lock import FileLock, may_be_alive

HOLD = """
import sys, time
from pathlib import Path
from llava.eval.file_lock import FileLock
with FileLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_another_process_is_refused_and_a_killed_one_frees_it(tmp_path: Path) -> None:
    target = tmp_path / "a.jsonl"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(target)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=rf"process {holder.pid} on {socket.gethostname()}, since 2"):
            FileLock(target).acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert (tmp_path / "a.jsonl.lock").exists()
        with FileLock(target):
            assert json.loads((tmp_path / "a.jsonl.lock").read_text())["pid"] == os.getpid()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_held_in_this_process_is_refused_too(tmp_path: Path) -> None:
    with FileLock(tmp_path / "a"), pytest.raises(UsageError, match="is being written by another run"):
        FileLock(tmp_path / "a").acquire()
    with FileLock(tmp_path / "a"):
        pass


def test_where_the_system_has_no_locks_the_process_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int, kind: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", none)
    here = {"host": socket.gethostname()}
    for owner, alive in (
        ({"pid": os.getppid(), **here}, True),
        ({"pid": 2**22 + 1, **here}, False),
        ({"pid": 1, "host": "elsewhere"}, True),
        ({}, False),
    ):
        assert may_be_alive(owner) == alive
        (tmp_path / "a.lock").write_text(json.dumps(owner))
        lock = FileLock(tmp_path / "a")
        if alive:
            with pytest.raises(UsageError, match="remove"):
                lock.acquire()
        else:
            lock.acquire()
            lock.release()


def test_a_lock_that_was_removed_meanwhile_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its holder ended between our opening and our locking: that file is nobody's any more."""
    calls: list[int] = []
    real = file_lock.is_file_at

    def once_gone(handle: int, path: Path) -> bool:
        if not calls:
            path.unlink()
        calls.append(handle)
        return real(handle, path)

    monkeypatch.setattr(file_lock, "is_file_at", once_gone)
    with FileLock(tmp_path / "a"):
        assert len(calls) == 2
        assert (tmp_path / "a.lock").exists()
