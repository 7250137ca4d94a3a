"""A full disk, files of limited size, a folder that cannot be written, clocks that jump."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llava.train.disk_room import SMALL_FILES
from llava.train.manifest import COMPLETE_NAME, verify
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.test_kills import going_on
from tests.faults.trainings import KINDS, Trainings, sums

KEEP_ALL = ("--save_total_limit", "9")


@contextmanager
def small_disk(folder: Path, num_bytes: int, options: str = "rw") -> Iterator[Path]:
    """A file system of this size, in memory; the test is skipped where none can be mounted."""
    folder.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={num_bytes},{options}", "tmpfs", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("no small file system can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def size_of(folder: Path) -> int:
    """Bytes that a folder takes on a disk of pages of 4096."""
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in folder.rglob("*") if file.is_file())


@pytest.fixture(scope="module")
def checkpoint_bytes(trainings: Trainings) -> dict[str, int]:
    """What a checkpoint of each kind takes."""
    found = {}
    for kind in KINDS:
        folder = trainings.place("size")
        trainings.run(folder, kind, kill_at_step=3).was_killed()
        found[kind] = size_of(folder / "checkpoint-2")
    return found


def whole_checkpoints(folder: Path) -> list[str]:
    """Names of checkpoints that verify; there are no others."""
    names = []
    for entry in sorted(folder.glob("checkpoint-*")):
        verify(entry)
        names.append(entry.name)
    return names


@pytest.mark.parametrize("saves", [1, 2, 3])
@pytest.mark.parametrize("kind", ["full", "lora"])
def test_disk_full_at_a_save(
    kind: str, saves: int, checkpoint_bytes: dict[str, int], trainings: Trainings, fault_log: FaultLog
) -> None:
    """The disk fills up after the start has looked; with room again, the same command goes on."""
    disk_bytes = 8 << 20
    with small_disk(trainings.folder / f"disk {kind} {saves}", disk_bytes) as disk:
        folder = disk / "run"
        left = int(checkpoint_bytes[kind] * (saves - 0.5))
        filler = {"path": str(disk / "filler"), "bytes": disk_bytes - left}
        message = trainings.run(folder, kind, *KEEP_ALL, fill_at_start=filler).was_refused()
        good = whole_checkpoints(folder)
        assert good == [f"checkpoint-{2 * number}" for number in range(1, saves)]
        assert f"{good[-1]} is whole" in message if good else "no earlier checkpoint" in message
        assert f"checkpoint-{2 * saves} could not be saved" in message
        assert re.search(r"takes about .*\([\d,]+ bytes\), .*\([\d,]+ bytes\) are free", message)
        assert not (folder / ".saving").exists()
        (disk / "filler").unlink()
        outcome = trainings.run(folder, kind, *KEEP_ALL).ended_well()
        assert going_on(outcome.log) == (good[-1] if good else "the start")
        assert sums(folder, kind) == trainings.undisturbed(kind, *KEEP_ALL)
    fault_log(f"disk full at a save, {kind}", "told; with room went on, same weights", SURVIVED)


@pytest.mark.parametrize("kind", KINDS)
def test_file_too_large(kind: str, trainings: Trainings, fault_log: FaultLog) -> None:
    """RLIMIT_FSIZE, at the largest file of the first save of a run and of a resumed one."""
    folder = trainings.place("limit")
    for step in (1, 3):
        largest = {"full": 400_000, "lora": 30_000, "projector": 10_000}[kind]
        message = trainings.run(folder, kind, largest_file_at=[step, largest]).was_refused()
        assert f"checkpoint-{step + 1} could not be saved" in message
        assert "is whole" in message if step > 1 else "no earlier checkpoint" in message
        assert whole_checkpoints(folder) == (["checkpoint-2"] if step > 1 else [])
        assert not (folder / ".saving").exists()
        trainings.run(folder, kind, kill_at_step=step + 2).was_killed()
    trainings.run(folder, kind).ended_well()
    assert sums(folder, kind) == trainings.undisturbed(kind)
    fault_log(f"limit on the size of a file, {kind}", "told; without it went on, same weights", SURVIVED, 2)


@pytest.mark.parametrize("kind", ["full", "projector"])
def test_disk_full_at_the_result(
    kind: str, checkpoint_bytes: dict[str, int], trainings: Trainings, fault_log: FaultLog
) -> None:
    """After ten hours: the last checkpoint is whole, and the same command needs no step more."""
    disk_bytes = 8 << 20
    with small_disk(trainings.folder / f"result {kind}", disk_bytes) as disk:
        folder = disk / "run"
        left = int(checkpoint_bytes[kind] * 4 + 20_000)
        filler = {"path": str(disk / "filler"), "bytes": disk_bytes - left}
        message = trainings.run(folder, kind, *KEEP_ALL, fill_at_start=filler).was_refused()
        assert "result could not be saved" in message
        assert "checkpoint-8 is whole" in message
        assert not (folder / COMPLETE_NAME).exists()
        (disk / "filler").unlink()
        outcome = trainings.run(folder, kind, *KEEP_ALL).ended_well()
        assert "going on from checkpoint-8" in outcome.log
        assert "for 0 steps" in outcome.log
        assert sums(folder, kind) == trainings.undisturbed(kind, *KEEP_ALL)
    fault_log(f"disk full at the result, {kind}", "told; with room finished, same weights", SURVIVED)


def test_too_little_room_is_told_before_the_first_step(trainings: Trainings, fault_log: FaultLog) -> None:
    with small_disk(trainings.folder / "tiny disk", 1 << 20) as disk:
        message = trainings.run(disk / "run", "full").was_refused()
        assert "a save takes about" in message
        assert "free disk space" in message
    with small_disk(trainings.folder / "small disk", 5 << 20) as disk:
        log = trainings.run(disk / "run", "full", kill_at_step=1).was_killed().log
        assert "the disk will be full before the end" in log
    fault_log("disk too small at the start", "refused, or warned of, before step 1", REFUSED, 2)


def test_estimate_of_a_checkpoint(trainings: Trainings) -> None:
    """What the start counts with, without the flat sum for small files, is what the large files take, but for
    some hundred bytes around each tensor.
    """
    for kind in KINDS:
        folder = trainings.place("estimated")
        log = trainings.run(folder, kind, kill_at_step=3).was_killed().log
        found = re.search(r"A checkpoint takes about .*?\(([\d,]+) bytes\)", log)
        assert found, log
        estimate = int(found[1].replace(",", "")) - SMALL_FILES
        large = ("model.safetensors", "adapter_model.safetensors", "mm_projector.bin", "optimizer.pt")
        files = [folder / "checkpoint-2" / name for name in large]
        written = sum(file.stat().st_size for file in files if file.is_file())
        assert estimate == pytest.approx(written, rel=0.1, abs=40_000), kind


def test_a_folder_that_cannot_be_written(trainings: Trainings, fault_log: FaultLog) -> None:
    place = trainings.folder / "read only"
    with small_disk(place, 1 << 20, "ro"):
        message = trainings.run(place / "run", "lora").was_refused()
        assert "cannot be written (Read-only file system)" in message
    with small_disk(place, 8 << 20):
        folder = place / "run"
        trainings.run(folder, "lora", kill_at_step=3).was_killed()
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        assert "cannot be written" in trainings.run(folder, "lora").was_refused()
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        trainings.run(folder, "lora").ended_well()
        assert sums(folder, "lora") == trainings.undisturbed("lora")
    fault_log("output folder read-only, at start and at resume", "refused; writable, went on", REFUSED, 2)


def test_clocks_that_jump(trainings: Trainings, fault_log: FaultLog) -> None:
    """Neither the clock nor dates of files decide what is newest or deleted."""
    folder = trainings.place("clock")
    trainings.run(folder, "lora", kill_at_step=5, clock=3e7).was_killed()
    for number, name in enumerate(("checkpoint-4", "checkpoint-2")):
        for file in [folder / name, *(folder / name).iterdir()]:
            os.utime(file, (1e9 * (number + 1),) * 2)
    log = trainings.run(folder, "lora", clock=-3e8).ended_well().log
    assert "going on from checkpoint-4" in log
    assert sorted(entry.name for entry in folder.glob("checkpoint-*")) == ["checkpoint-6", "checkpoint-8"]
    assert sums(folder, "lora") == trainings.undisturbed("lora")
    fault_log("clock jumps, dates of files turned round", "went on, same weights", SURVIVED, 2)


def test_folders_of_others_are_left_alone(trainings: Trainings, fault_log: FaultLog) -> None:
    other = trainings.place("others")
    shutil.copytree(trainings.folder / "base", other)
    before = {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}
    assert "finished run" in trainings.run(other, "lora").was_refused()
    assert before == {file: file.read_bytes() for file in other.rglob("*") if file.is_file()}
    parent = trainings.place("parent")
    shutil.copytree(other, parent / "one")
    assert "holds other runs (one)" in trainings.run(parent, "lora").was_refused()
    foreign = trainings.place("foreign")
    (foreign / "checkpoint-5").mkdir(parents=True)
    (foreign / "checkpoint-5" / "trainer_state.json").write_text(json.dumps({"global_step": 5}))
    message = trainings.run(foreign, "lora").was_refused()
    assert "checkpoint-5: it has no complete.json" in message
    fault_log("output folder of another run or program", "refused, nothing touched", REFUSED, 3)
