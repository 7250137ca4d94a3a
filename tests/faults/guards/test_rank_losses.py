"""What the guards must not change: two ranks, dealt unequal batches, train and evaluate as one process."""

import json
from pathlib import Path

import pytest
from torch import Tensor

from tests.e2e.conftest import ROOT, losses
from tests.faults.conftest import SURVIVED, FaultLog
from tests.faults.guards.conftest import WarmTrainer, assert_same, checkpoints, weights_of

LOSS_ATOL = 1e-4  # fp32; worst seen with DDP 3.6e-7
WEIGHT_ATOL = 1e-4  # fp32; worst seen with DDP 1.2e-7
# with an epsilon of 1e-8 Adam would magnify rounding
CLIPPED = ("--max_grad_norm", "0.5", "--adam_epsilon", "1e-4", "--lora_dropout", "0")
slow = pytest.mark.slow


def way(name: str) -> list[str]:
    """The flags of a way to share the work: DDP, or a DeepSpeed stage."""
    return [] if name == "ddp" else ["--deepspeed", str(ROOT / "scripts" / f"{name}.json")]


def evaluations(folder: Path) -> list[float]:
    """The logged losses of the samples held out."""
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return [row["eval_loss"] for row in history if "eval_loss" in row]


@pytest.fixture(scope="module")
def single(warm: WarmTrainer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of one process, with everything that ranks could disturb."""
    found = {}
    for kind in ("full", "lora"):
        found[kind] = tmp_path_factory.mktemp("single") / kind
        outcome = warm.train(found[kind], *CLIPPED, kind=kind)
        assert outcome.codes == [0], outcome.log
    return found


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("ddp", "full"),
        ("ddp", "lora"),
        pytest.param("zero2", "full", marks=slow),
        pytest.param("zero2", "lora", marks=slow),
        pytest.param("zero3", "full", marks=slow),
        pytest.param("zero3", "lora", marks=slow),
    ],
)
def test_two_ranks_train_as_one_process(
    name: str, kind: str, warm: WarmTrainer, single: dict[str, Path], tmp_path: Path
) -> None:
    """Accumulation over two micro-batches, clipped gradients, ranks with unequal numbers of pictures."""
    if name != "ddp":
        pytest.importorskip("deepspeed")
    outcome = warm.train(tmp_path / "out", *CLIPPED, *way(name), kind=kind, ranks=2)
    assert outcome.codes == [0, 0], outcome.log
    assert "Tokens of the fullest rank" in outcome.log
    found = losses(tmp_path / "out")
    assert len(found) == 4
    assert found == pytest.approx(losses(single[kind]), abs=LOSS_ATOL)
    weights, wanted = weights_of(tmp_path / "out", kind), weights_of(single[kind], kind)
    assert weights.keys() == wanted.keys()
    assert max((weights[key] - wanted[key]).abs().max().item() for key in wanted) < WEIGHT_ATOL


def test_a_checkpoint_of_two_ranks_goes_on_as_one_process(
    warm: WarmTrainer, undisturbed: dict[str, dict[str, Tensor]], tmp_path: Path, fault_log: FaultLog
) -> None:
    fault = {"kind": "signal", "signal": "SIGTERM", "where": "on_step_begin", "step": 2}
    outcome = warm.train(tmp_path / "out", kind="full", ranks=2, fault=fault)
    assert outcome.codes == [143, 143], outcome.log
    again = warm.train(tmp_path / "out", kind="full")
    assert again.codes == [0], again.log
    found, wanted = weights_of(tmp_path / "out"), undisturbed["full"]
    assert max((found[key] - wanted[key]).abs().max().item() for key in wanted) < 1e-3
    fault_log("SIGTERM to two ranks, resumed by one", "same samples in each step, same weights", SURVIVED)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["full", "lora"])
@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_ranks_that_are_killed_go_on(
    name: str, kind: str, warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog
) -> None:
    pytest.importorskip("deepspeed")
    saving = ("--save_strategy", "steps", "--save_steps", "2")
    whole = warm.train(tmp_path / "whole", *saving, *way(name), kind=kind, ranks=2)
    assert whole.codes == [0, 0], whole.log
    fault = {"kind": "die", "step": 4, "rank": "all"}
    outcome = warm.train(tmp_path / "out", *saving, *way(name), kind=kind, ranks=2, fault=fault)
    assert outcome.codes == [-9, -9], outcome.log
    again = warm.train(tmp_path / "out", *saving, *way(name), kind=kind, ranks=2)
    assert again.codes == [0, 0], again.log
    assert "going on from checkpoint-2" in again.log
    assert_same(weights_of(tmp_path / "out", kind), weights_of(tmp_path / "whole", kind))
    fault_log(f"{name}, {kind}: both ranks killed", "resumed, the same weights bit for bit", SURVIVED)


HELD_OUT = ("--eval_split", "0.3", "--eval_strategy", "steps", "--eval_steps", "2")


@pytest.mark.parametrize(
    ("flags", "ranks"),
    [
        (["--per_device_eval_batch_size", "1"], 1),
        (["--per_device_eval_batch_size", "2"], 2),
        (["--packing", "none", "--per_device_eval_batch_size", "3"], 1),
        pytest.param(["--per_device_eval_batch_size", "2", *way("zero3")], 2, marks=slow),
    ],
)
def test_the_loss_held_out_is_the_same_for_all_batches_and_ranks(
    flags: list[str], ranks: int, warm: WarmTrainer, tmp_path: Path, held_out: Path
) -> None:
    outcome = warm.train(tmp_path / "out", *HELD_OUT, *CLIPPED, *flags, ranks=ranks)
    assert outcome.codes == [0] * ranks, outcome.log
    found, wanted = evaluations(tmp_path / "out"), evaluations(held_out)
    assert len(wanted) == 2
    assert wanted[0] != pytest.approx(wanted[1], abs=1e-2), "the run must change it"
    assert found == pytest.approx(wanted, abs=LOSS_ATOL)
    rows = (tmp_path / "out" / "held_out.json").read_text(encoding="utf-8")
    assert rows == (held_out / "held_out.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def held_out(warm: WarmTrainer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one process that evaluates."""
    folder = tmp_path_factory.mktemp("held_out") / "out"
    outcome = warm.train(folder, *HELD_OUT, *CLIPPED)
    assert outcome.codes == [0], outcome.log
    return folder


@pytest.mark.parametrize("kind", ["full", pytest.param("lora", marks=slow)])
def test_early_stopping_ends_with_the_best_checkpoint(
    kind: str, warm: WarmTrainer, tmp_path: Path, fault_log: FaultLog
) -> None:
    """At a rate that soon makes it worse; the run is interrupted on the way, and goes on counting."""
    rate = {"full": "1e-2", "lora": "2e-1"}[kind]
    flags = (
        *("--eval_split", "0.3", "--early_stopping_patience", "3", "--max_steps", "30"),
        *("--save_strategy", "steps", "--save_steps", "1", "--save_total_limit", "1"),
        *("--learning_rate", rate, "--lr_scheduler_type", "constant"),
    )
    whole = warm.train(tmp_path / "whole", *flags, kind=kind)
    assert whole.codes == [0], whole.log
    history = evaluations(tmp_path / "whole")
    best = history.index(min(history)) + 1
    assert len(history) == best + 3, "it must end after three worse ones"
    assert f"checkpoint-{best}" in checkpoints(tmp_path / "whole")
    assert_same(
        weights_of(tmp_path / "whole", kind), weights_of(tmp_path / "whole" / f"checkpoint-{best}", kind)
    )
    fault = {"kind": "signal", "signal": "SIGTERM", "where": "on_step_begin", "step": best + 2}
    stopped = warm.train(tmp_path / "out", *flags, kind=kind, fault=fault)
    assert stopped.codes == [143], stopped.log
    again = warm.train(tmp_path / "out", *flags, kind=kind)
    assert again.codes == [0], again.log
    assert evaluations(tmp_path / "out") == history
    assert_same(weights_of(tmp_path / "out", kind), weights_of(tmp_path / "whole", kind))
    fault_log("SIGTERM while early stopping counts", "went on counting, ended with the best", SURVIVED)
