"""Checkpoint folders without a training: small files with a true manifest."""

from pathlib import Path

from llava.train.manifest import CHECKPOINT, COMPLETE_NAME, Facts, Manifest, Position, list_files, measure_all

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


def write_checkpoint(folder: Path, step: int, facts: Facts | None = None) -> None:
    """A whole checkpoint folder after `step` steps."""
    folder.mkdir(parents=True)
    for name in NAMES:
        (folder / name).write_text(f"{name} {step}", encoding="utf-8")
    files = measure_all(folder, list_files(folder))
    manifest = Manifest(CHECKPOINT, Position(step, step, 0, step, "shared"), facts or Facts({}), files)
    (folder / COMPLETE_NAME).write_text(manifest.text(), encoding="utf-8")
