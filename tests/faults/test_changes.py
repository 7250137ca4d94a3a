"""Resuming after something changed: what alters the result is refused by its name, what does not goes on."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.faults.trainings import Trainings, sums

ALTERING = {
    "seed": ("--seed", "7"),
    "samples per step": ("--per_device_train_batch_size", "4"),
    "learning_rate": ("--learning_rate", "2e-3"),
    "mm_projector_lr": ("--mm_projector_lr", "2e-3"),
    "lr_scheduler_type": ("--lr_scheduler_type", "linear"),
    "steps of the schedule": ("--max_steps", "10"),
    "warmup_steps": ("--warmup_steps", "3"),
    "weight_decay": ("--weight_decay", "0.1"),
    "packing": ("--packing", "packed"),
    "max_branches": ("--max_branches", "2"),
    "pack_tokens": ("--pack_tokens", "300"),
    "lora_r": ("--lora_r", "4"),
    "lora_alpha": ("--lora_alpha", "8"),
    "lora_dropout": ("--lora_dropout", "0.2"),
    "lora_enable": ("--lora_enable", "False"),
    "template": ("--version", "plain"),
    "model_max_length": ("--model_max_length", "512"),
    "bf16": ("--bf16", "True"),
    "freeze_vision_tower": ("--freeze_vision_tower", "False"),
    "image_aspect_ratio": ("--image_aspect_ratio", "square"),
    "optim": ("--optim", "sgd"),
}
HARMLESS = (
    *("--logging_steps", "3"),
    *("--save_steps", "3"),
    *("--save_total_limit", "5"),
    *("--dataloader_num_workers", "1"),
    *("--cache_vision_features", "memory"),
    *("--run_name", "other"),
)
QUARTERS = ("--per_device_train_batch_size", "4")
EIGHTHS = ("--per_device_train_batch_size", "2")


@pytest.fixture(scope="module")
def stopped(trainings: Trainings) -> Path:
    """The folder of a LoRA run that was killed after step 3."""
    folder = trainings.place("stopped for changes")
    trainings.run(folder, "lora", kill_at_step=3).was_killed()
    return folder


def test_flags_that_alter_the_result_are_refused(
    stopped: Path, trainings: Trainings, fault_log: FaultLog
) -> None:
    before = sorted(stopped.rglob("*"))
    for name, flags in ALTERING.items():
        message = trainings.run(stopped, "lora", *flags).was_refused()
        assert f"\n  {name}: " in message, message
        assert "--force_resume True" in message
    several = trainings.run(stopped, "lora", *ALTERING["seed"], *ALTERING["lora_r"]).was_refused()
    assert "\n  lora_r: 2 then, 4 now" in several
    assert "\n  seed: 42 then, 7 now" in several
    assert {*stopped.rglob("*")} <= {*before}, "a refused run leaves nothing"
    fault_log("a flag changed at resume", "refused, field named", REFUSED, len(ALTERING))


def test_changed_files_are_refused(stopped: Path, trainings: Trainings, fault_log: FaultLog) -> None:
    rows = json.loads((trainings.folder / "train.json").read_text())
    data = trainings.folder / "other.json"
    for change in (rows[:-1], rows[::-1], [rows[0] | {"image": "1.png"}, *rows[1:]]):
        data.write_text(json.dumps(change))
        assert "\n  data: " in trainings.run(stopped, "lora", "--data_path", str(data)).was_refused()
    images = trainings.folder / "other images"
    shutil.copytree(trainings.folder / "images", images)
    Image.new("RGB", (8, 8), (1, 2, 3)).save(images / "3.png")
    assert "\n  pictures: " in trainings.run(stopped, "lora", "--image_folder", str(images)).was_refused()
    base = trainings.folder / "other base"
    shutil.copytree(trainings.folder / "base", base)
    config = json.loads((base / "config.json").read_text())
    config["text_config"]["attention_dropout"] = 0.2
    (base / "config.json").write_text(json.dumps(config))
    other = trainings.run(stopped, "lora", "--model_name_or_path", str(base))
    assert "\n  base model: " in other.was_refused()
    fault_log("data, pictures or base model changed at resume", "refused, field named", REFUSED, 5)


def test_moved_files_and_harmless_flags_go_on(
    stopped: Path, trainings: Trainings, fault_log: FaultLog
) -> None:
    """Other ids and layout of the JSON, too: what is learned is the same."""
    moved = trainings.folder / "moved"
    moved.mkdir()
    shutil.copytree(trainings.folder / "images", moved / "pictures")
    shutil.copytree(trainings.folder / "base", moved / "model")
    rows = json.loads((trainings.folder / "train.json").read_text())
    (moved / "rows.json").write_text(json.dumps([row | {"id": f"x{row['id']}"} for row in rows], indent=1))
    folder = trainings.place("moved run")
    shutil.copytree(stopped, folder)
    flags = (
        *("--data_path", str(moved / "rows.json")),
        *("--image_folder", str(moved / "pictures")),
        *("--model_name_or_path", str(moved / "model")),
    )
    outcome = trainings.run(folder, "lora", *flags, *HARMLESS).ended_well()
    assert "going on from checkpoint-2" in outcome.log
    assert sums(folder, "lora") == trainings.undisturbed("lora")
    fault_log("files moved, harmless flags changed at resume", "went on, same weights", SURVIVED, 9)


def test_forced(stopped: Path, trainings: Trainings) -> None:
    folder = trainings.place("forced")
    shutil.copytree(stopped, folder)
    flags = ("--learning_rate", "2e-3", "--force_resume", "True")
    log = trainings.run(folder, "lora", *flags).ended_well().log
    assert "going on from checkpoint-2" in log
    assert "learning_rate: 0.001 then, 0.002 now" in log
    assert "go on as they were saved" in log
    changed = ("--weight_decay", "0.1", "--packing", "packed", "--force_resume", "True")
    shutil.rmtree(folder)
    shutil.copytree(stopped, folder)
    assert "packing: shared then, packed now" in trainings.run(folder, "lora", *changed).ended_well().log


def test_longer_runs_with_a_constant_rate(trainings: Trainings) -> None:
    """Then no rate depends on the number of steps; and a finished run has nothing left to do."""
    constant = ("--lr_scheduler_type", "constant", "--cache_vision_features", "memory")
    folder = trainings.place("longer")
    trainings.run(folder, "lora", *constant, "--max_steps", "4").ended_well()
    log = trainings.run(folder, "lora", *constant, "--max_steps", "4").ended_well().log
    assert "nothing left to do" in log
    log = trainings.run(folder, "lora", *constant).ended_well().log
    assert "going on from checkpoint-4" in log
    assert sums(folder, "lora") == trainings.undisturbed("lora", *constant)
    without = trainings.place("no checkpoints")
    trainings.run(without, "lora", "--save_strategy", "no").ended_well()
    assert "nothing left to do" in trainings.run(without, "lora", "--save_strategy", "no").log
    assert "finished run" in trainings.run(without, "lora", "--seed", "3").was_refused()


def batches(file: Path, count: int) -> list[list[str]]:
    """The first batches that a run drew; the loader is one ahead of the training."""
    found = [json.loads(line) for line in file.read_text().splitlines()]
    assert count <= len(found) <= count + 1
    return found[:count]


def drawn(trainings: Trainings, name: str) -> Path:
    """A fresh file for the order of a run."""
    file = trainings.folder / f"order {name}"
    file.unlink(missing_ok=True)
    return file


@pytest.fixture(scope="module")
def whole_order(trainings: Trainings) -> list[list[str]]:
    """Batches of four of a whole run of one process."""
    file = drawn(trainings, "whole")
    trainings.run(trainings.place("whole order"), "projector", *QUARTERS, order=str(file)).ended_well()
    found = batches(file, 8)
    assert len({tuple(batch) for batch in found}) > 5, "epochs must differ"
    return found


def test_same_samples_per_step_in_other_batches(
    whole_order: list[list[str]], trainings: Trainings, fault_log: FaultLog
) -> None:
    folder, file = trainings.place("other batches"), drawn(trainings, "resumed")
    trainings.run(folder, "projector", *QUARTERS, kill_at_step=4).was_killed()
    halves = (*EIGHTHS, "--gradient_accumulation_steps", "2")
    trainings.run(folder, "projector", *halves, order=str(file)).ended_well()
    found = batches(file, 12)
    assert [one + two for one, two in zip(found[::2], found[1::2], strict=True)] == whole_order[2:]
    fault_log("4 x 1 samples per step become 2 x 2", "went on in the same order", SURVIVED)


def test_from_two_ranks_to_one_and_back(
    whole_order: list[list[str]], trainings: Trainings, fault_log: FaultLog
) -> None:
    folder = trainings.place("ranks")
    kill = [4, 4]
    assert [
        entry.status for entry in trainings.run_ranks(folder, "projector", *EIGHTHS, kill_at_step=kill)
    ] == [
        -9,
        -9,
    ]
    copy = trainings.place("ranks kept")
    shutil.copytree(folder, copy)
    file = drawn(trainings, "one rank")
    outcome = trainings.run(folder, "projector", *QUARTERS, order=str(file)).ended_well()
    assert "written by 2 ranks, now there are 1" in outcome.log
    assert [sorted(batch) for batch in batches(file, 6)] == [sorted(batch) for batch in whole_order[2:]]

    refused = trainings.run(copy, "projector", *EIGHTHS).was_refused()
    assert "samples per step: 4 then, 2 now" in refused

    again = trainings.place("one rank first")
    trainings.run(again, "projector", *QUARTERS, kill_at_step=4).was_killed()
    files = [drawn(trainings, f"rank {rank}") for rank in range(2)]
    for entry in trainings.run_ranks(again, "projector", *EIGHTHS, order=[str(file) for file in files]):
        entry.ended_well()
    both = zip(*(batches(file, 6) for file in files), strict=True)
    assert [sorted(one + two) for one, two in both] == [sorted(batch) for batch in whole_order[2:]]
    fault_log("2 ranks become 1, and 1 becomes 2", "went on in the same order", SURVIVED, 2)
    fault_log("2 ranks become 1 with the batch of one", "refused with the numbers", REFUSED)
