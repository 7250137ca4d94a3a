"""A configuration may claim any size; its weights must lie in the files before memory is taken for them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM, PretrainedConfig

from llava.errors import UsageError
from llava.model.checkpoint import read_files
from llava.model.contents import CONFIG_NAME
from llava.model.stored_tensors import Weights
from llava.model_files import blame

MOST_TIMES = 4
"""How many times the numbers of its files a model may have on paper."""


def check_part(folder: Path, chosen: Any, config: PretrainedConfig) -> None:
    """`check_room` for a language or vision model of transformers, of the class `chosen`."""
    is_auto = chosen in (AutoModel, AutoModelForCausalLM)
    make = chosen.from_config if is_auto else chosen
    check_room(folder, config, read_files(folder), make=lambda: make(config))


def check_room(
    folder: Path, config: PretrainedConfig, weights: Weights, *, make: Callable[[], nn.Module]
) -> None:
    """`UsageError` when the model of a configuration has more layers, or far more numbers, than its files.

    `make` lays it out; what it makes here takes no memory, buffers included.
    """
    refuse_deeper_than_files(folder, config, weights)
    with blame(folder / CONFIG_NAME), torch.device("meta"):
        model = make()
    tied = getattr(config, "tie_word_embeddings", False)
    wanted = sum(weight.numel() for weight in unique_weights(model, tied=tied))
    found = sum(form.numel() for form in weights.forms().values())
    if wanted > found * MOST_TIMES:  # single missing tensors are named later, by strict loading
        raise UsageError(
            f"{folder}: the model that config.json describes has {wanted:,} numbers, but the weight files "
            f"hold {found:,}; get the files again."
        )


def unique_weights(model: Any, *, tied: bool) -> list[nn.Parameter]:
    """Parameters, without a head that is the input embeddings."""
    head = model.get_output_embeddings() if tied and hasattr(model, "get_output_embeddings") else None
    left_out = set() if head is None else {id(weight) for weight in head.parameters()}
    return [weight for weight in model.parameters() if id(weight) not in left_out]


def refuse_deeper_than_files(folder: Path, config: PretrainedConfig, weights: Weights) -> None:
    """`UsageError` for more layers than tensors: a model of them would take long to lay out."""
    parts = [getattr(config, name, None) for name in config.sub_configs] or [config]
    layers = sum(getattr(part, "num_hidden_layers", 0) or 0 for part in parts)
    if layers > len(weights):
        raise UsageError(
            f"{folder}: config.json describes {layers} layers, but the weight files hold {len(weights)} "
            "tensors; get the files again."
        )
