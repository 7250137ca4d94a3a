"""Where a model's weights go: one device, or several by transformers' `device_map`."""

from typing import Any

import torch
from accelerate import dispatch_model, infer_auto_device_map
from accelerate.utils import get_balanced_memory

from llava.errors import UsageError
from llava.model.llava import LlavaForCausalLM

SPREADING = ("auto", "balanced", "balanced_low_0", "sequential")
"""Words that share a model out among all GPUs."""


def one_device(device_map: object, device: str | None) -> torch.device | None:
    """The only device that the loader's two arguments name, None where the model is to be shared out.

    `device` counts before `device_map`; `auto` with one GPU or none is that one, or the CPU.
    """
    if isinstance(device_map, dict) and len(set(device_map.values())) == 1:
        device_map = next(iter(device_map.values()))
    # the original's default, "cuda", leaves it to device_map
    named: Any = device if device not in (None, "cuda") else device_map
    if named in (None, "") or named in SPREADING:
        if torch.cuda.device_count() > 1 and named in SPREADING:
            return None
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if isinstance(named, dict):
        return None
    try:
        return torch.device(named if not isinstance(named, int) else f"cuda:{named}")
    except (RuntimeError, TypeError):
        raise UsageError(
            f"device_map is {device_map!r} and device {device!r}; use a device such as 'cpu' or 'cuda:0', a "
            f"map of module names to devices, or one of {', '.join(SPREADING)}."
        ) from None


def share_out(model: LlavaForCausalLM, device_map: Any) -> LlavaForCausalLM:
    """Put the parts of a model on several devices: by a map of module names, or as one of `SPREADING` says.

    A layer is never split. Raises `UsageError` for a map that leaves a part out.
    """
    if not isinstance(device_map, dict):
        whole = sorted(whole_layers(model))
        low = device_map == "balanced_low_0"
        memory = None
        if device_map != "sequential":
            memory = get_balanced_memory(model, no_split_module_classes=whole, low_zero=low)
        device_map = infer_auto_device_map(model, max_memory=memory, no_split_module_classes=whole)
    try:
        return dispatch_model(model, device_map=device_map)
    except ValueError as error:
        raise UsageError(f"device_map does not fit the model: {error}") from None


def whole_layers(model: LlavaForCausalLM) -> set[str]:
    """Class names of the layers of both sub-models, which stay on one device each."""
    parts = (model.model.language_model, model.model.vision_tower)
    return {name for part in parts for name in getattr(part, "_no_split_modules", None) or ()}
