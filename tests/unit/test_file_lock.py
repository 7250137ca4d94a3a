"""The lock on a file: one holder, a crash frees it, a clean end leaves nothing, forked processes lack it."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from llava import file_lock
from llava.errors import UsageError
from llava.file_lock import FileLock, Holder, may_be_alive

GONE = 2**22 + 1
"""No process has this number."""
HOLD = """
import sys, time
from pathlib import Path
from llava.file_lock import FileLock
with FileLock(Path(sys.argv[1]), in_use="it is in use", remedy="name another"):
    print("held", flush=True)
    time.sleep(60)
"""
HOLD_AND_FORK = """
import os, signal, sys, time
from pathlib import Path
from llava.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]), in_use="it is in use", remedy="name another")
lock.acquire()
child = os.fork()
if child == 0:
    lock.release()  # must not free the parent's
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def lock_at(path: Path) -> FileLock:
    return FileLock(path, in_use="it is in use", remedy="name another")


def test_another_process_is_refused_and_a_killed_one_frees_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        who = rf"process {holder.pid} on {socket.gethostname()}, since 2[^)]*"
        with pytest.raises(UsageError, match=rf"^it is in use \({who}\); name another\.$"):
            lock_at(path).acquire()
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert path.exists()
        with lock_at(path):
            assert json.loads(path.read_text())["pid"] == os.getpid()
        assert f"the run before (process {holder.pid} on " in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_a_forked_process_neither_frees_nor_keeps_it(tmp_path: Path) -> None:
    """A loader process may live on for seconds after its training was killed."""
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD_AND_FORK, str(path)], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        child = int(holder.stdout.readline())
        try:
            assert path.exists()
            with pytest.raises(UsageError, match=f"process {holder.pid} on"):
                lock_at(path).acquire()
            holder.send_signal(signal.SIGKILL)
            holder.wait()
            os.kill(child, 0)
            with lock_at(path):
                pass
        finally:
            holder.kill()
            os.kill(child, signal.SIGKILL)


def test_a_lock_held_in_this_process_is_refused_too(tmp_path: Path) -> None:
    with lock_at(tmp_path / "a"):
        for _ in range(2):  # a refusal leaves the first lock as it is
            with pytest.raises(UsageError, match=f"process {os.getpid()} on"):
                lock_at(tmp_path / "a").acquire()
        with lock_at(tmp_path / "b"):
            pass
    with lock_at(tmp_path / "a"):
        pass


def test_where_the_system_has_no_locks_the_process_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(handle: int, kind: int) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr("fcntl.flock", none)
    here = socket.gethostname()
    for holder, alive in (
        (Holder(os.getppid(), here), True),
        (Holder(os.getpid(), here), False),
        (Holder(GONE, here), False),
        (Holder(1, "elsewhere"), True),
    ):
        assert may_be_alive(holder) == alive
        (tmp_path / "a").write_text(json.dumps({"pid": holder.pid, "host": holder.host}))
        if alive:
            with pytest.raises(UsageError, match=rf"Then remove {tmp_path / 'a'}"):
                lock_at(tmp_path / "a").acquire()
        else:
            with lock_at(tmp_path / "a"), pytest.raises(UsageError, match="it is in use"):
                lock_at(tmp_path / "a").acquire()


@pytest.mark.parametrize("left", ["", "{", "[]", "7", '{"pid": 0, "host": "h"}', '{"pid": -1}', "[" * 4000])
def test_a_file_that_names_nobody_is_nobodys(left: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_text(left)
    with lock_at(tmp_path / "a"):
        assert json.loads((tmp_path / "a").read_text())["pid"] == os.getpid()


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
    with lock_at(tmp_path / "a"):
        assert len(calls) == 2
        assert (tmp_path / "a").exists()
