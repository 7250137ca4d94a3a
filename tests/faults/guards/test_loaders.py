"""Loader processes that are killed, raise or have no memory left: the message names the samples."""

from pathlib import Path

import pytest

from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.guards.conftest import WarmTrainer

WORKERS = ("--dataloader_num_workers", "2", "--cache_vision_features", "off")
ENDS = {
    "kill": ("killed by signal: Killed", "was making a batch of rows", "--per_device_train_batch_size"),
    "raise": ("this picture cannot be made a tensor", "while making a batch of rows"),
    "memory": ("MemoryError", "while making a batch of rows", "--per_device_train_batch_size"),
}


@pytest.mark.parametrize("act", ENDS)
def test_the_samples_are_named(act: str, warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog) -> None:
    outcome = warm.train(
        tmp_path / "out", *WORKERS, fault={"kind": "loader", "act": act, "when": {"worker_call": 2}}
    )
    assert outcome.codes == [1], outcome.log
    for part in (*ENDS[act], "This was step"):
        assert part in outcome.log, outcome.log
    named = [line for line in outcome.log.splitlines() if "batch of rows" in line]
    assert any("c" in line.partition("batch of rows")[2] or "text" in line for line in named)
    fault_log(f"loader process: {act}", "the run ends, its samples are named", REFUSED)


def test_a_signal_to_all_processes_of_a_run_leaves_its_loaders_at_work(
    warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog
) -> None:
    """As a cluster or a terminal sends it."""
    fault = {"kind": "signal", "signal": "SIGTERM", "where": "on_step_begin", "step": 2, "group": True}
    at_work = ("--per_device_train_batch_size", "1", "--dataloader_prefetch_factor", "1")
    outcome = warm.train(tmp_path / "out", *WORKERS, *at_work, fault=fault)
    assert outcome.codes == [143], outcome.log
    assert "DataLoader worker" not in outcome.log
    fault_log("SIGTERM to the training and its loaders", "saved at the step's end", SURVIVED)
