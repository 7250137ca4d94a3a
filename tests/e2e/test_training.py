"""Training through the real scripts: packing modes agree, a killed run ends with the same weights, ranks
agree with one process.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.e2e.conftest import ROOT, losses, run_script, script_environment, training_variables

LOSS_ATOL = 2e-5  # fp32, 10 steps at a high rate: worst seen 2.5e-6; a wrong last step gives 0.17
SCRIPTS = {"lora": "scripts/v1.5/finetune_task_lora.sh", "full": "scripts/v1.5/finetune_task.sh"}
WEIGHTS = {"lora": "adapter_model.safetensors", "full": "model.safetensors"}
FLAGS = ("--max_steps", "10", "--logging_steps", "1", "--learning_rate", "1e-3", "--lora_dropout", "0")

KINDS = ["lora", pytest.param("full", marks=pytest.mark.slow)]
"""Full fine-tuning is killed in tests/faults and compared in test_fast_modes.py, too."""


def train(kind: str, lesson: Path, output_dir: Path, *flags: str, **variables: object) -> list[float]:
    """Run a training script; the losses of its steps."""
    result = run_script(SCRIPTS[kind], *FLAGS, *flags, **(training_variables(lesson, output_dir) | variables))
    assert result.returncode == 0, result.stderr[-3000:]
    return losses(output_dir)


@pytest.mark.parametrize("kind", KINDS)
def test_packing_modes_train_alike(kind: str, lesson: Path, tmp_path: Path) -> None:
    runs = {mode: train(kind, lesson, tmp_path / mode, "--packing", mode) for mode in ("none", "shared")}
    assert len(runs["none"]) == 10
    assert runs["none"][0] != pytest.approx(runs["none"][-1], abs=1e-2), "the run must change the model"
    assert runs["shared"] == pytest.approx(runs["none"], abs=LOSS_ATOL)


@pytest.mark.parametrize("kind", KINDS)
def test_killed_run_ends_with_the_same_weights(kind: str, lesson: Path, tmp_path: Path) -> None:
    steps = ("--save_strategy", "steps", "--save_steps", "3", "--max_steps", "16", "--lora_dropout", "0.1")
    train(kind, lesson, tmp_path / "whole", *steps)
    output_dir = tmp_path / "killed"
    process = subprocess.Popen(
        ["bash", SCRIPTS[kind], *FLAGS, *steps],
        cwd=ROOT,
        env=script_environment(training_variables(lesson, output_dir)),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    wait_for(output_dir / "checkpoint-3" / "complete.json", process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (output_dir / WEIGHTS[kind]).exists(), "the run must be killed before its end"
    train(kind, lesson, output_dir, *steps)
    whole, resumed = (load_file(folder / WEIGHTS[kind]) for folder in (tmp_path / "whole", output_dir))
    assert whole.keys() == resumed.keys()
    for name, weight in whole.items():
        assert weight.equal(resumed[name]), name


def wait_for(file: Path, process: subprocess.Popen) -> None:
    """Until a file exists; fails when the process ends first."""
    for _ in range(2400):
        if file.exists():
            return
        assert process.poll() is None, "the run ended before it was killed"
        time.sleep(0.02)
    raise AssertionError(f"{file} did not appear")


@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_two_ranks_with_deepspeed_give_the_losses_of_one_process(
    stage: str, lesson: Path, tmp_path: Path
) -> None:
    pytest.importorskip("deepspeed")
    single = train("lora", lesson, tmp_path / "single", BATCH_SIZE=8)
    ranks = train("lora", lesson, tmp_path / stage, BATCH_SIZE=4, NPROC=2, DEEPSPEED=f"scripts/{stage}.json")
    assert ranks == pytest.approx(single, abs=LOSS_ATOL)


def test_two_ranks_with_kept_features_give_the_losses_of_one_process_on_pixels(
    lesson: Path, tmp_path: Path
) -> None:
    """With DDP and features on disk, and with ZeRO-3 and features in memory; some batches have no picture."""
    pytest.importorskip("deepspeed")
    pixels = train("lora", lesson, tmp_path / "pixels", "--cache_vision_features", "off", BATCH_SIZE=8)
    folder = tmp_path / "kept"
    on_disk = ("--cache_vision_features", "disk", "--vision_cache_dir", str(folder))
    in_memory = ("--cache_vision_features", "memory")
    for name, flags, settings in (("disk", on_disk, "none"), ("memory", in_memory, "scripts/zero3.json")):
        found = train(
            "lora", lesson, tmp_path / name, *flags, BATCH_SIZE=4, NPROC=2, DEEPSPEED=settings, WORKERS=0
        )
        assert found == pytest.approx(pixels, abs=LOSS_ATOL), name
    (kept,) = folder.rglob("*.features")
    assert kept.stat().st_size == 8 * 64 * 128 * 4  # pictures, patches, width, bytes
