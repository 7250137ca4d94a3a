"""Training runs of the golden data: the working folder that their relative paths are meant for, and what a
run did.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.model.checkpoint import rename
from llava.model.key_names import OURS, original_table
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import ADAPTER_WEIGHTS_NAME, PROJECTOR_NAME, WEIGHTS_NAME
from llava.train import recipe
from llava.train.trainer import LlavaTrainer
from tests.parity.golden import DATA

PROJECTOR_TYPE = "mlp2x_gelu"


def working_folder(folder: Path) -> Path:
    """A folder with the golden models, and `data` with the data files and pictures, as the golden runs had
    it.
    """
    for model in (DATA / "models").iterdir():
        (folder / model.name).symlink_to(model)
    shutil.copytree(DATA / "data", folder / "data")
    shutil.copytree(DATA / "images", folder / "data" / "images")
    return folder


class RateCallback(TrainerCallback):
    """Keeps the learning rate of every group before each step."""

    def __init__(self) -> None:
        self.rates: list[list[float]] = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        groups = kwargs["optimizer"].param_groups  # type: ignore[attr-defined]
        self.rates.append([group["lr"] for group in groups])


@dataclass(frozen=True)
class Run:
    """Losses and rates by group of each step, and what was saved, by the original's names."""

    losses: list[float]
    rates: list[list[float]]
    weights: dict[str, Tensor]
    folder: Path


def run_training(argv: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the training entry in this process; the result is read from the files that it wrote."""
    seen = RateCallback()

    class Watched(LlavaTrainer):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[arg-type]
            self.add_callback(seen)

    monkeypatch.setattr(recipe, "LlavaTrainer", Watched)
    recipe.run([*argv, "--output_dir", str(folder), "--disable_tqdm", "True"])
    history = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["log_history"]
    return Run([row["loss"] for row in history if "loss" in row], seen.rates, saved_weights(folder), folder)


def saved_weights(folder: Path) -> dict[str, Tensor]:
    """The tensors of a full or projector checkpoint by the original's names, an adapter's by PEFT's."""
    if (folder / ADAPTER_WEIGHTS_NAME).is_file():
        return read_tensors(folder / ADAPTER_WEIGHTS_NAME)
    if (folder / PROJECTOR_NAME).is_file():
        return read_tensors(folder / PROJECTOR_NAME)
    table = original_table(PROJECTOR_TYPE)
    ours = rename(load_file(folder / WEIGHTS_NAME), OURS, source=folder)
    return {table.to_disk(key): value for key, value in ours.items()}
