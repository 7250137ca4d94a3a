"""Two ranks over gloo, without a launcher that would end the one when the other ends: each ends by itself,
soon, and says where it was.
"""

from pathlib import Path

from llava.train.exit_codes import NOT_FINITE, STUCK
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.guards.conftest import WarmTrainer, checkpoints, weights_of

TIMEOUT = 8
FLAGS = ("--ddp_timeout", str(TIMEOUT))
STARTING = 30
"""Seconds that two ranks may take until the step of the fault, on a machine that others use too."""


def test_a_dead_rank_ends_the_other(warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog) -> None:
    fault = {"kind": "die", "step": 3, "rank": 1}
    outcome = warm.train(tmp_path / "out", *FLAGS, ranks=2, fault=fault)
    assert outcome.codes == [1, -9], outcome.log
    waited = outcome.seconds[0] - outcome.seconds[1]
    assert waited < TIMEOUT + 5
    assert "This was rank 0 of 2, step 3" in outcome.logs[0]
    assert "rows c" in outcome.logs[0].partition("This was rank 0")[2]
    fault_log("rank killed", f"the other ended {waited:.0f} s later with step and rows", REFUSED)


def test_a_rank_that_hangs_ends_both(warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog) -> None:
    fault = {"kind": "sleep", "step": 3, "rank": 1, "seconds": 100}
    outcome = warm.train(tmp_path / "out", *FLAGS, ranks=2, fault=fault)
    assert outcome.codes[1] == STUCK, outcome.log
    assert outcome.codes[0] in (1, STUCK), "its own watch, or the message between ranks, whichever is first"
    assert max(outcome.seconds) < TIMEOUT + 5 + STARTING
    assert "no progress for 8 s: rank 1 of 2, step 3, computing micro-batch 1 of 2, rows" in outcome.logs[1]
    assert "rank 0 of 2, step 3" in outcome.logs[0]
    assert "in _event" in outcome.logs[1] or "lambda" in outcome.logs[1], "the line that it is at"
    fault_log("rank hangs", "both ended within --ddp_timeout, with rank, step and rows", REFUSED)


def test_a_slow_rank_is_waited_for(warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog) -> None:
    fault = {"kind": "sleep", "step": 3, "rank": 1, "seconds": 3}
    outcome = warm.train(tmp_path / "out", *FLAGS, ranks=2, fault=fault)
    assert outcome.codes == [0, 0], outcome.log
    assert weights_of(tmp_path / "out")
    fault_log("rank slow for 3 s", "waited for", SURVIVED)


def test_a_rank_that_raises_in_the_collator_ends_both(
    warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog
) -> None:
    fault = {"kind": "loader", "act": "raise", "when": {"after_step": 2}, "rank": 1}
    outcome = warm.train(tmp_path / "out", *FLAGS, "--cache_vision_features", "off", ranks=2, fault=fault)
    assert outcome.codes[1] == 1, outcome.log
    assert outcome.codes[0] != 0
    assert "this picture cannot be made a tensor" in outcome.logs[1]
    assert "while making a batch of rows" in outcome.logs[1]
    assert "This was rank 1 of 2, step" in outcome.logs[1]
    assert max(outcome.seconds) < TIMEOUT + 5 + STARTING
    fault_log("rank raises in its collator", "both ended, rank, step and rows named", REFUSED)


def test_ranks_agree_on_a_loss_that_is_not_finite(
    warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog
) -> None:
    fault = {"kind": "spoil", "at": [4], "value": "nan", "rank": 1}
    outcome = warm.train(tmp_path / "out", *FLAGS, ranks=2, fault=fault)
    assert outcome.codes == [NOT_FINITE, NOT_FINITE], outcome.log
    assert "step 2: rank 1, loss" in outcome.logs[1]
    assert "the loss of rank 1 is not finite" in outcome.logs[0]
    assert (tmp_path / "out" / "bad_batch-2-rank1.json").is_file()
    assert not (tmp_path / "out" / "bad_batch-2-rank0.json").exists()
    fault_log("NaN loss on one rank", "both stopped before the step", REFUSED)


def test_ranks_agree_on_a_signal_to_one(warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog) -> None:
    fault = {"kind": "signal", "signal": "SIGTERM", "where": "on_substep_end", "step": 2, "rank": 1}
    outcome = warm.train(tmp_path / "out", *FLAGS, ranks=2, fault=fault)
    assert outcome.codes == [143, 143], outcome.log
    assert checkpoints(tmp_path / "out") == ["checkpoint-2"]
    fault_log("SIGTERM to one rank", "both saved and ended with its exit code", SURVIVED)
