"""A loss or a gradient that is not finite: the run stops before the weights are spoiled, names the rows,
keeps the batch and the last good checkpoint.
"""

import json
from itertools import product
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor

from llava.train.exit_codes import NOT_FINITE
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.guards.conftest import WarmTrainer, assert_same, checkpoints, weights_of

SPOILED = {
    "NaN loss": {"value": "nan"},
    "infinite loss": {"value": "inf"},
    "NaN gradient": {"value": "nan", "gradient": True},
}
MOMENTS = {"first step": 1, "second micro-batch": 4, "middle": 5}
"""Numbers of micro-batches, counted from 1, two of which make a step."""
SAVING = ("--save_strategy", "steps", "--save_steps", "1")


@pytest.mark.parametrize(
    ("kind", "what", "moment"),
    [
        pytest.param(
            *case, marks=[pytest.mark.slow] * (case[0] == "lora" and case[2] != "second micro-batch")
        )
        for case in product(("full", "lora"), SPOILED, MOMENTS)
    ],
)
def test_the_run_stops_before_the_step(
    kind: str,
    what: str,
    moment: str,
    warm: WarmTrainer,
    undisturbed: dict[str, dict[str, Tensor]],
    tmp_path: Path,
    fault_log: FaultLog,
) -> None:
    at = MOMENTS[moment]
    step, out = (at + 1) // 2, tmp_path / "out"
    outcome = warm.train(out, *SAVING, kind=kind, fault={"kind": "spoil", "at": [at], **SPOILED[what]})
    assert outcome.codes == [NOT_FINITE], outcome.log
    report = json.loads((out / f"bad_batch-{step}.json").read_text(encoding="utf-8"))
    if "gradient" in SPOILED[what]:
        assert len(report["micro_batches"]) == 2, "which of them spoiled the gradient cannot be told"
        assert report["gradient_norm"] == "nan"
    else:
        assert [entry["number"] for entry in report["micro_batches"]] == [(at - 1) % 2]
    ids = [one for entry in report["micro_batches"] for one in entry["ids"]]
    assert ids
    assert f"error: step {step}: loss" in outcome.log
    assert f"rows {', '.join(ids)}" in outcome.log
    assert all("ASSISTANT:" in row for entry in report["micro_batches"] for row in entry["rows"])
    assert load_file(out / f"bad_batch-{step}.safetensors")
    assert checkpoints(out) == [f"checkpoint-{number}" for number in range(1, step)]
    if moment == "middle":
        again = warm.train(out, *SAVING, kind=kind)
        assert again.codes == [0], again.log
        assert_same(weights_of(out, kind), undisturbed[kind])
    fault_log(f"{what}, {moment}", "stopped before the step, rows named, last checkpoint good", REFUSED)


@pytest.mark.parametrize("what", SPOILED)
def test_a_step_is_left_out_where_that_is_asked_for(
    what: str, warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog
) -> None:
    flags = (*SAVING, "--on_nonfinite", "skip")
    outcome = warm.train(tmp_path / "out", *flags, fault={"kind": "spoil", "at": [4], **SPOILED[what]})
    assert outcome.codes == [0], outcome.log
    assert "The step is left out, the 1. of this run" in outcome.log
    assert "'loss': 'nan'" not in outcome.log, "the later ones, and their mean, are numbers"
    before, after = (weights_of(tmp_path / "out" / f"checkpoint-{step}") for step in (1, 2))
    assert_same(after, before)
    assert any(not weight.equal(before[name]) for name, weight in weights_of(tmp_path / "out").items())
    fault_log(f"{what}, --on_nonfinite skip", "step left out, weights unmoved by it", SURVIVED)


def test_three_in_a_row_stop_all_the_same(warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog) -> None:
    fault = {"kind": "spoil", "at": [2, 4, 6], "value": "nan"}
    outcome = warm.train(tmp_path / "out", "--on_nonfinite", "skip", fault=fault)
    assert outcome.codes == [NOT_FINITE], outcome.log
    assert outcome.log.count("The step is left out") == 2
    fault_log("NaN loss in three steps in a row, skip", "stopped at the third", REFUSED)


def test_a_spike_is_only_logged(warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog) -> None:
    flags = ("--max_steps", "14", "--learning_rate", "0")
    outcome = warm.train(tmp_path / "out", *flags, fault={"kind": "spoil", "at": [25], "value": "1e6"})
    assert outcome.codes == [0], outcome.log
    (line,) = [line for line in outcome.log.splitlines() if "times the mean" in line]
    assert line.startswith("Step 13: loss")
    fault_log("loss times a million", "logged with its rows, training goes on", SURVIVED)
