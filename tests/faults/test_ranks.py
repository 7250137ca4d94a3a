"""Two ranks, with DDP and with DeepSpeed's stages 2 and 3: killed twice and gone on from."""

import json
from pathlib import Path

import pytest

from llava.train.manifest import verify
from tests.faults.conftest import SURVIVED, FaultLog
from tests.faults.test_damage import flip
from tests.faults.trainings import KILLED, ROOT, WEIGHTS, Trainings, hash_of_tensors

BATCH = ("--per_device_train_batch_size", "2", "--max_steps", "6")
ENGINES = {
    "ddp": (),
    **{stage: ("--deepspeed", str(ROOT / f"scripts/{stage}.json")) for stage in ("zero2", "zero3")},
}
SLOW = (("ddp", "lora"), ("zero2", "lora"), ("zero3", "full"), ("zero3", "lora"))
"""DeepSpeed compiles its operations in the first run on a machine, which takes minutes."""
CASES = [("ddp", "full"), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]


def train(trainings: Trainings, folder: Path, engine: str, kind: str, **faults: list) -> list:
    """A run of two ranks."""
    if engine != "ddp":
        pytest.importorskip("deepspeed")
    return trainings.run_ranks(folder, kind, *BATCH, *ENGINES[engine], **faults)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("engine", "kind"), CASES)
def test_two_ranks(engine: str, kind: str, trainings: Trainings, fault_log: FaultLog) -> None:
    """Both are killed at a step, go on, are killed again, and a bit of the second rank's file turns over."""
    whole = trainings.place("ranks whole")
    for outcome in train(trainings, whole, engine, kind):
        outcome.ended_well()
    wanted = hash_of_tensors(whole / WEIGHTS[kind])

    folder = trainings.place("ranks killed")
    outcomes = train(trainings, folder, engine, kind, kill_at_step=[3, 3])
    assert [outcome.status for outcome in outcomes] == [KILLED, KILLED], outcomes[0].log[-2000:]
    manifest = verify(folder / "checkpoint-2")
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= set(manifest.files)
    assert manifest.facts.deepspeed == (engine != "ddp")
    for outcome in train(trainings, folder, engine, kind, kill_at_step=[5, 5]):
        assert outcome.status == KILLED
    flip(folder / "checkpoint-4" / "rng_state_1.pth")
    outcomes = train(trainings, folder, engine, kind)
    for outcome in outcomes:
        outcome.ended_well()
    assert "rng_state_1.pth changed" in outcomes[0].log
    assert "going on from checkpoint-2" in outcomes[0].log
    assert hash_of_tensors(folder / WEIGHTS[kind]) == wanted
    state = json.loads((folder / "trainer_state.json").read_text())
    assert state["global_step"] == 6
    fault_log(f"2 ranks killed, a rank's file damaged, {engine}, {kind}", "same weights", SURVIVED, 3)


def test_one_rank_that_cannot_write_stops_all(trainings: Trainings, fault_log: FaultLog) -> None:
    """None waits for the other until a timeout, and the same command goes on."""
    folder = trainings.place("one rank full")
    limits = [None, [3, 1000]]
    outcomes = train(trainings, folder, "ddp", "projector", largest_file_at=limits)
    for outcome in outcomes:
        message = outcome.was_refused()
        assert "checkpoint-4 could not be saved" in message
        assert "checkpoint-2 is whole" in message
    assert not (folder / ".saving").exists()
    for outcome in train(trainings, folder, "ddp", "projector"):
        outcome.ended_well()
    whole = trainings.place("one rank whole")
    for outcome in train(trainings, whole, "ddp", "projector"):
        outcome.ended_well()
    name = WEIGHTS["projector"]
    assert hash_of_tensors(folder / name) == hash_of_tensors(whole / name)
    fault_log("one of 2 ranks cannot write", "all told and ended, same weights afterwards", SURVIVED)
