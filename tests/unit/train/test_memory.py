"""The memory estimate: what a real step takes, by resident memory and by counted storages; checkpointing by
it.
"""

import sys
from pathlib import Path

import pytest
import torch

from benchmarks.memory import batch_of, build, compare_in_fresh_process, config_of
from llava.errors import UsageError
from llava.train import estimate, estimating, step_memory
from llava.train.arguments import parse_arguments
from llava.train.memory import (
    Estimate,
    Sharing,
    StepSettings,
    StepShape,
    StorageWatch,
    bytes_of,
    estimate_step,
    optimizer_bytes,
    shared_out,
    table,
)
from llava.train.step_memory import checkpointing_for, is_checkpointing, set_checkpointing
from tests.parity.golden import DATA, golden_folder
from tests.tiny import tiny_model

CPU = torch.device("cpu")
SHARE = (
    0.15  # of the measured peak; benchmarks/memory.py: worst seen 0.13 (LoRA, bf16, checkpointing), else 0.05
)
SMALL = StepShape(rows=2, length=640, pictures=2, targets=40)
REQUIRED = ["--model_name_or_path", str(golden_folder("llava-v1.5-tiny")), "--output_dir", "out"]


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
@pytest.mark.parametrize(
    "flags",
    [
        ("--kinds", "full", "--checkpointing", "off", "--rows", "2", "--length", "900", "--targets", "900"),
        ("--kinds", "lora", "--checkpointing", "on", "--rows", "4", "--length", "700", "--targets", "60"),
    ],
)
def test_estimate_is_near_the_measured_peak(flags: tuple[str, ...]) -> None:
    found = compare_in_fresh_process(*flags, "--width", "320", "--layers", "5")
    assert found["measured_mb"] > 150, "small differences must not count"
    assert abs(found["estimate_over_measured"] - 1) < SHARE, found


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_fake_steps_take_what_real_ones_do(kind: str) -> None:
    """The same storages are counted with numbers in them (without an optimiser)."""
    config = config_of(width=64, layers=2)
    options = {"checkpointing": False, "bf16": False}
    expected = estimate_step(
        build(config, kind, **options, device="meta"), SMALL, StepSettings(CPU, optimizer="sgd")
    )
    model = build(config, kind, **options, device="cpu")
    batch = batch_of(config, SMALL)
    watch = StorageWatch()
    for value in [*model.parameters(), *model.buffers(), *batch.values()]:
        watch.follow(value, counted=False)
    with watch:
        model(**batch).loss.backward()
    assert expected.total - expected.weights == pytest.approx(watch.highest, rel=0.02)
    assert expected.gradients < expected.activations < watch.highest


def tiny_estimate(**changes: object) -> Estimate:
    """A tiny model's estimate."""
    with torch.device("meta"):
        model = tiny_model(0).train()
    model.model.vision_tower.requires_grad_(bool(changes.pop("tower", False)))
    if changes.pop("checkpointing", False):
        step_memory.enable_checkpointing(model)
    shape = StepShape(3, 50, 2, 20, features_kept=bool(changes.pop("kept", False)))
    return estimate_step(model, shape, StepSettings(CPU, **changes))  # type: ignore[arg-type]


def test_parts_follow_the_flags() -> None:
    plain = tiny_estimate()
    assert plain.weights == bytes_of(tiny_model(0), trainable=False)
    assert plain.optimizer == 2 * plain.gradients
    assert plain.vision > 0
    assert tiny_estimate(checkpointing=True).activations < plain.activations / 2
    assert tiny_estimate(kept=True).vision < plain.vision
    trained = tiny_estimate(tower=True)
    assert trained.gradients > plain.gradients
    assert trained.activations > plain.activations
    assert tiny_estimate(accumulation=4).total > plain.total, "gradients of earlier batches are there"
    assert tiny_estimate(optimizer="sgd").optimizer == 0


def test_shares_of_ranks() -> None:
    whole = Estimate(80, 40, 80, 5, 50, 6, 250)
    assert shared_out(whole, 10, Sharing()) == whole
    assert shared_out(whole, 10, Sharing(ranks=2)).total == 290, "DDP's buckets"
    stages = [shared_out(whole, 10, Sharing(4, stage)) for stage in (1, 2, 3)]
    assert [(one.weights, one.gradients, one.optimizer) for one in stages] == [
        (80, 40, 20),
        (80, 10, 20),
        (20, 10, 20),
    ]
    assert [one.total for one in stages] == [190, 160, 100]
    assert shared_out(whole, 10, Sharing(4, 2, low_precision=True)).optimizer == 30


def test_optimizers_by_name() -> None:
    names = ("adamw_torch", "adamw_torch_fused", "sgd", "adafactor", "paged_adamw_8bit", "lion_8bit")
    assert [optimizer_bytes(name, 100, 400) for name in names] == [800, 800, 0, 0, 200, 100]


def test_table_has_a_row_per_part() -> None:
    lines = table({"a": tiny_estimate(), "b": tiny_estimate()}).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [name for name, _ in tiny_estimate().rows()]
    assert all(len(line) == len(lines[0]) for line in lines)


@pytest.mark.parametrize(
    ("flags", "room", "wanted"),
    [
        ([], 10**12, False),
        ([], 1000, True),
        (["--gradient_checkpointing", "auto"], 1000, True),
        (["--activation_checkpointing", "auto"], 1000, True),
        (["--gradient_checkpointing", "False"], 1000, False),
        (["--gradient_checkpointing", "True"], 10**12, True),
        (["--gradient_checkpointing"], 10**12, True),
        (["--gradient_checkpointing", "True", "--gradient_checkpointing", "auto"], 10**12, False),
        (["--gradient_checkpointing", "auto", "--gradient_checkpointing", "True"], 10**12, True),
    ],
)
def test_checkpointing_by_flag_and_memory(
    flags: list[str], room: int, wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_memory, "memory_for", lambda device, loaded: room)
    model_args, _, args = parse_arguments([*REQUIRED, "--data_path", "train.json", *flags])
    found = checkpointing_for(tiny_model(0), StepShape(2, 40, 1, 8), model_args, args)
    assert found is wanted
    set_checkpointing(args, on=found)
    assert is_checkpointing(args) is wanted


def test_a_model_that_cannot_be_estimated_still_trains(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*args: object, **kwargs: object) -> None:
        raise RuntimeError("looks at numbers")

    monkeypatch.setattr(step_memory, "estimate_run", broken)
    model_args, _, args = parse_arguments([*REQUIRED, "--data_path", "train.json"])
    assert not checkpointing_for(tiny_model(0), StepShape(2, 40, 1, 8), model_args, args)
    assert "could not be estimated (looks at numbers); gradient checkpointing is off" in caplog.text


def test_the_command_prints_both(capsys: pytest.CaptureFixture) -> None:
    data = ["--data_path", str(DATA / "data" / "traj8.json"), "--image_folder", str(DATA)]
    estimate.main([*REQUIRED, *data, "--lora_enable", "True"])
    shown = capsys.readouterr().out
    assert "no checkpointing    gradient checkpointing" in shown
    assert "peak of a step" in shown
    assert "Largest of the first batches: " in shown
    assert "samples of a batch are computed together." in shown


def test_the_command_names_a_missing_tower(tmp_path: Path) -> None:
    flags = [*REQUIRED, "--data_path", "train.json"]
    flags[1] = str(golden_folder("tiny-vicuna-v1.5"))
    with pytest.raises(UsageError, match="without a vision tower; name one with --vision_tower"):
        estimating.config_of(*parse_arguments(flags)[:2], cache_dir=None)
