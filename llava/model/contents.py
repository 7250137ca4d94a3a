"""What a checkpoint folder holds, whatever its layout: readers return it, the builder makes a model."""

from dataclasses import dataclass, field
from pathlib import Path

from transformers import PretrainedConfig

from llava.errors import UsageError
from llava.model.config import LlavaConfig
from llava.model.foreign_config import config_of, from_values, safe_values
from llava.model.key_names import KeyTable
from llava.model.stored_tensors import Weights
from llava.model_files import blame, read_model_json

CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class Adapter:
    """A LoRA: PEFT's settings (r, lora_alpha, ...) and its tensors by our names."""

    settings: dict
    weights: Weights


@dataclass(frozen=True)
class Contents:
    """Tensors by our names, read when they are asked for; the table gives their names on disk for messages.

    `text_folder` holds the tokenizer, `picture_folder` the image processor.
    """

    source: Path
    config: LlavaConfig
    weights: Weights = field(repr=False)
    table: KeyTable
    text_folder: Path
    picture_folder: Path
    adapter: Adapter | None = None


def read_config(folder: Path) -> dict:
    """config.json of a folder as plain values, without those that could run code (see `foreign_config`).

    `UsageError` when there is none, it is broken, or a size in it cannot be.
    """
    values = read_json(folder, CONFIG_NAME)
    with blame(folder / CONFIG_NAME):
        return safe_values(values)


def own_config(folder: Path) -> LlavaConfig:
    """The configuration of a folder of our own layout; `UsageError` as from `read_config`."""
    values = read_config(folder)
    with blame(folder / CONFIG_NAME):
        return from_values(LlavaConfig, values)


def model_config(folder: Path) -> PretrainedConfig:
    """The configuration of a language or vision model's folder; `UsageError` as from `read_config`."""
    values = read_config(folder)
    with blame(folder / CONFIG_NAME):
        if "model_type" not in values:
            raise UsageError("model_type is missing; it says which model of transformers the folder holds.")
        return config_of(values, "")


def read_json(folder: Path, name: str) -> dict:
    """A JSON file of a model folder; `UsageError` when there is none or it is broken."""
    file = folder / name
    if not file.is_file():
        raise UsageError(f"{folder} is not a model folder: it has no {name}. Check the path.")
    return read_model_json(file)
