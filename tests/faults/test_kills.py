"""kill -9 at steps and inside saves: the same command ends with the weights of an undisturbed run."""

import random
import re
import shutil
from pathlib import Path

import pytest

from llava.train.manifest import COMPLETE_NAME
from tests.faults.conftest import SURVIVED, FaultLog
from tests.faults.trainings import KINDS, Trainings, sums

ONE_BATCH = ("--per_device_train_batch_size", "10")
TWO_BATCHES = ("--per_device_train_batch_size", "5", "--gradient_accumulation_steps", "2")
LAYOUTS = {
    "1 batch": ONE_BATCH,
    "2 batches, 1 worker": (*TWO_BATCHES, "--dataloader_num_workers", "1"),
    "1 batch in 2 parts": (*ONE_BATCH, "--micro_batch_size", "5"),
}
KILLS_PER_RUN = 3


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_steps(kind: str, layout: str, trainings: Trainings, fault_log: FaultLog) -> None:
    flags = LAYOUTS[layout]
    wanted = trainings.undisturbed(kind, *flags)
    folder = trainings.place("killed")
    steps = sorted(random.Random(f"{kind}/{layout}").sample(range(1, 9), KILLS_PER_RUN))
    for step in steps:
        within = layout != "1 batch" and step % 2 == 0
        trainings.run(folder, kind, *flags, kill_at_step=step - within, substep=within).was_killed()
    trainings.run(folder, kind, *flags).ended_well()
    assert sums(folder, kind) == wanted
    fault_log(f"kill -9 at a step, {kind}, {layout}", "went on, same weights", SURVIVED, KILLS_PER_RUN)


SHORT = ("--max_steps", "4", "--save_total_limit", "1")
"""Saves at 2 and 4; the second deletes the first; then comes the result."""


def operations_of(trainings: Trainings, kind: str, before: Path) -> list[str]:
    """What the second half of a short run does to its folder, in order."""
    folder, record = copy_of(trainings, before), trainings.folder / "operations"
    record.unlink(missing_ok=True)
    trainings.run(folder, kind, *SHORT, record=str(record)).ended_well()
    return record.read_text(encoding="utf-8").splitlines()


def copy_of(trainings: Trainings, before: Path) -> Path:
    """A folder as it was after the first save."""
    folder = trainings.place("copy")
    shutil.copytree(before, folder)
    return folder


@pytest.fixture(scope="module", params=KINDS)
def saved_once(request: pytest.FixtureRequest, trainings: Trainings) -> tuple[str, Path]:
    """A kind, and the folder of its short run that was killed after its first save."""
    kind = request.param
    folder = trainings.place(f"saved once {kind}")
    trainings.run(folder, kind, *SHORT, kill_at_step=3).was_killed()
    assert (folder / "checkpoint-2").is_dir()
    return kind, folder


def test_killed_inside_a_save(
    saved_once: tuple[str, Path], trainings: Trainings, fault_log: FaultLog
) -> None:
    """At every operation on a full run's files; of the others at some, the writing itself being the same."""
    kind, before = saved_once
    wanted = trainings.undisturbed(kind, *SHORT)
    operations = operations_of(trainings, kind, before)
    for part in (
        "os.rename /.saving/checkpoint-4",
        "os.rename /checkpoint-2",
        "/.removing/",
        "/.saving/result/",
    ):
        assert any(part in operation for operation in operations), f"{part} must be among {operations}"
    effective = [number for number, name in enumerate(operations) if not name.startswith("os.mkdir")]
    chosen = effective[:: 1 if kind == "full" else 6]
    endings = set()
    for number in chosen:
        folder = copy_of(trainings, before)
        trainings.run(folder, kind, *SHORT, kill_at_operation=number).was_killed()
        named = list(folder.glob("checkpoint-*"))
        assert named, operations[number]
        assert all((entry / COMPLETE_NAME).is_file() for entry in named), operations[number]
        outcome = trainings.run(folder, kind, *SHORT).ended_well()
        endings.add(going_on(outcome.log))
        assert sums(folder, kind) == wanted, operations[number]
        left = {entry.name for entry in folder.iterdir() if entry.is_dir()}
        assert {"checkpoint-4"} <= left <= {"checkpoint-2", "checkpoint-4"}, operations[number]
    assert {"checkpoint-2", "checkpoint-4"} <= endings, "kills before and after the rename are among them"
    fault_log(
        f"kill -9 inside a save, {kind}", "previous or new one used, same weights", SURVIVED, len(chosen)
    )


def going_on(log: str) -> str:
    """The checkpoint that a run says it went on from."""
    found = re.search(r"going on from (checkpoint-\d+)", log)
    return found[1] if found else "nothing left to do" if "nothing left to do" in log else "the start"
