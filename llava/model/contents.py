"""What a checkpoint folder holds, whatever its layout: readers return it, the builder makes a model."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from llava.errors import UsageError
from llava.model.config import LlavaConfig
from llava.model.key_names import KeyTable
from llava.model.stored_tensors import Weights


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
    """config.json of a folder as plain JSON; `UsageError` when there is none or it is broken."""
    return read_json(folder, "config.json")


def read_json(folder: Path, name: str) -> dict:
    """A JSON file of a model folder; `UsageError` when there is none or it is broken."""
    file = folder / name
    if not file.is_file():
        raise UsageError(f"{folder} is not a model folder: it has no {name}. Check the path.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} is not valid JSON: {error}.") from None
