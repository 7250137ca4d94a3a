"""Checkpoint folders without a training: small files with a true manifest."""

from dataclasses import replace
from pathlib import Path

from llava.train.manifest import (
    CHECKPOINT,
    COMPLETE_NAME,
    Facts,
    Manifest,
    Position,
    list_files,
    measure_all,
    read_manifest,
)

NAMES = (
    "model.safetensors",
    "optimizer.pt",
    "scheduler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "config.json",
    "tokenizer.json",
    "preprocessor_config.json",
)


def reseal(folder: Path) -> None:
    """Make a checkpoint's manifest fit what lies there, as somebody who means harm would."""
    manifest = replace(read_manifest(folder), files=measure_all(folder, list_files(folder)))
    (folder / COMPLETE_NAME).write_text(manifest.text(), encoding="utf-8")


def write_checkpoint(folder: Path, step: int, facts: Facts | None = None) -> None:
    """A whole checkpoint folder after `step` steps."""
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(f"{name} {step}", encoding="utf-8")
    files = measure_all(folder, list_files(folder))
    manifest = Manifest(CHECKPOINT, Position(step, step, 0, step, "shared"), facts or Facts({}), files)
    (folder / COMPLETE_NAME).write_text(manifest.text(), encoding="utf-8")
