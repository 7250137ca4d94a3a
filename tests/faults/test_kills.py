"""kill -9 at steps and inside saves: the same command ends with the weights of a run that nothing disturbed."""

import random
import shutil
from pathlib import Path

import pytest

from tests.faults.conftest import SURVIVED, FaultLog
from tests.faults.trainings import KINDS, Trainings, sums

ONE_BATCH = ("--per_device_train_batch_size", "10")
TWO_BATCHES = ("--per_device_train_batch_size", "5", "--gradient_accumulation_steps", "2")
LAYOUTS = {"1 batch": ONE_BATCH, "2 batches, 1 worker": (*TWO_BATCHES, "--dataloader_num_workers", "1")}
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
