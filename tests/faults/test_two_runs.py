"""Two runs on one output folder: the second is refused at once; what a crash leaves is no obstacle."""

import json
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.train import resuming
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.trainings import Trainings, sums

PATIENCE = 60


def wait_for(file: Path) -> None:
    """Until a file is there."""
    end = time.monotonic() + PATIENCE
    while not file.exists():
        assert time.monotonic() < end, f"{file} did not appear"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_the_second_run_is_refused_and_a_killed_one_followed(
    workers: str, trainings: Trainings, fault_log: FaultLog
) -> None:
    """Loader processes outlive a kill -9 for some seconds; they must not keep the folder."""
    folder, sign = trainings.place("two runs"), trainings.folder / f"sign {workers}"
    flags = ("--dataloader_num_workers", workers)
    first, log = trainings.start(folder, "lora", *flags, wait_at_step=3, sign=str(sign))
    wait_for(sign)
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*")}
    message = trainings.run(folder, "lora", *flags).was_refused()
    assert f"is in use by a run (process {first} on " in message
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*")} == before
    os.kill(first, signal.SIGKILL)
    trainings.end_of(first, log).was_killed()
    assert (folder / resuming.LOCK_NAME).exists(), "the crash must leave the lock's file"
    outcome = trainings.run(folder, "lora", *flags).ended_well()
    assert f"the run before (process {first} on " in outcome.log
    assert sums(folder, "lora") == trainings.undisturbed("lora")
    assert not (folder / resuming.LOCK_NAME).exists()
    fault_log(f"second run on a folder, {workers} workers", "refused, nothing touched", REFUSED)
    fault_log(f"lock of a killed run, {workers} workers", "recognised, same weights", SURVIVED)


def test_many_started_at_once(trainings: Trainings, fault_log: FaultLog) -> None:
    """Exactly one of them trains, whoever comes first."""
    folder = trainings.place("race")
    started = [trainings.start(folder, "projector") for _ in range(5)]
    outcomes = [trainings.end_of(*entry) for entry in started]
    trained = [outcome for outcome in outcomes if outcome.status == 0 and "for 8 steps" in outcome.log]
    assert len(trained) == 1
    for outcome in outcomes:
        if outcome not in trained:
            done = outcome.status == 0 and "nothing left to do" in outcome.log
            assert done or "is in use by a run" in outcome.was_refused()
    assert sums(folder, "projector") == trainings.undisturbed("projector")
    fault_log("five runs started at once", "one trains, the others are refused", REFUSED, 4)


@pytest.mark.parametrize(
    ("left", "free"),
    [
        (None, True),
        ("", True),
        ('{"pid": 1', True),
        ("[1]", True),
        ({"pid": "parent", "host": "here"}, False),
        ({"pid": "own", "host": "here"}, True),
        ({"pid": 2**22 + 1, "host": "here"}, True),
        ({"pid": 2**70, "host": "here"}, True),
        ({"pid": 1, "host": "another"}, False),
    ],
)
def test_file_systems_without_locks(
    left: object, free: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_log: FaultLog
) -> None:
    """There the names in the file decide: a process of this machine that is gone does not count, nor does an
    earlier one that had our number.
    """

    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    known = {"parent": os.getppid(), "own": os.getpid(), "here": socket.gethostname()}
    if isinstance(left, dict):
        left = json.dumps({key: known.get(str(value), value) for key, value in left.items()})
    if left is not None:
        (tmp_path / ".lock").write_text(str(left))
    lock = resuming.lock_of(tmp_path)
    if free:
        with lock:
            written = json.loads((tmp_path / ".lock").read_text())
            assert (written["pid"], written["host"]) == (os.getpid(), socket.gethostname())
            with pytest.raises(UsageError, match="in use by a run"):
                resuming.lock_of(tmp_path).acquire()
        assert not (tmp_path / ".lock").exists()
    else:
        with pytest.raises(UsageError, match=r"in use by a run .*Then remove .*\.lock"):
            lock.acquire()
        assert (tmp_path / ".lock").exists(), "the other's lock stays"
    fault_log("lock file on a file system without locks", "judged by process and host", SURVIVED)
