"""A signal at any moment: the run ends after the step, with a checkpoint and the signal's exit code, and the
same command ends with the weights of an undisturbed run.
"""

from itertools import product
from pathlib import Path

import pytest
from torch import Tensor

from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.guards.conftest import WarmTrainer, assert_same, checkpoints, weights_of

CODES = {"SIGINT": 130, "SIGTERM": 143, "SIGHUP": 129, "SIGUSR1": 143}
MOMENTS = {"between steps": "on_step_begin", "between micro-batches": "on_substep_end", "in a save": "saving"}


@pytest.mark.parametrize(
    ("name", "moment"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] * (number % 2))
        for number, case in enumerate(product(CODES, MOMENTS))
    ],
)
def test_a_signal_saves_and_the_run_goes_on(
    name: str,
    moment: str,
    warm: WarmTrainer,
    undisturbed: dict[str, dict[str, Tensor]],
    tmp_path: Path,
    fault_log: FaultLog,
) -> None:
    kind = "lora" if name in ("SIGINT", "SIGHUP") else "full"
    fault = {"kind": "signal", "signal": name, "where": MOMENTS[moment], "step": 3}
    saving = ("--save_strategy", "steps", "--save_steps", "2") if moment == "in a save" else ()
    outcome = warm.train(tmp_path / "out", *saving, kind=kind, fault=fault)
    assert outcome.codes == [CODES[name]], outcome.log
    assert "The same command goes on from there" in outcome.log
    assert checkpoints(tmp_path / "out") == ["checkpoint-2" if saving else "checkpoint-3"]
    assert not (tmp_path / "out" / "config.json").exists(), "it must not look like a finished run"
    again = warm.train(tmp_path / "out", *saving, kind=kind)
    assert again.codes == [0], again.log
    assert f"going on from checkpoint-{2 if saving else 3}" in again.log
    assert_same(weights_of(tmp_path / "out", kind), undisturbed[kind])
    fault_log(f"{name} {moment}", "saved at the step's end, exit code of the signal, resumed alike", SURVIVED)


SLOW_TOO = [pytest.param(name, marks=pytest.mark.slow) for name in ("SIGHUP", "SIGUSR1")]


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", *SLOW_TOO])
def test_a_second_signal_ends_the_run_at_once(
    name: str, warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog
) -> None:
    fault = {"kind": "twice", "signal": name, "step": 3}
    outcome = warm.train(tmp_path / "out", fault=fault)
    assert outcome.codes == [CODES[name]], outcome.log
    assert outcome.seconds[0] < 45, "the step would have taken 60 s"
    assert "A second signal: the run ends at once" in outcome.log
    assert checkpoints(tmp_path / "out") == []
    fault_log(f"{name} twice in a step", "ended at once, exit code of the signal", REFUSED)
