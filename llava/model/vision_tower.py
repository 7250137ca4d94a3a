"""Pictures to patch features: Hugging Face's CLIP (or SigLIP) vision model, read at one hidden layer."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, PretrainedConfig
from transformers.models.clip import CLIPVisionModel

from llava.errors import UsageError
from llava.model.contents import model_config
from llava.model.room import check_part
from llava.model_files import blame


def select_patches(hidden_states: Sequence[Tensor], layer: int, *, feature: str) -> Tensor:
    """Features of one vision layer: L x (I, 1 + P, V) -> (I, P, V); `cls_patch` keeps the class token."""
    selected = hidden_states[layer]
    return selected if feature == "cls_patch" else selected[:, 1:]


def encode_pictures(vision_tower: nn.Module, pixel_values: Tensor, *, layer: int, feature: str) -> Tensor:
    """Patch features of pictures, (I, 3, H, W) -> (I, P, V); without a graph while the tower is frozen."""
    trained = torch.is_grad_enabled() and any(weight.requires_grad for weight in vision_tower.parameters())
    dtype = next(vision_tower.parameters()).dtype
    with torch.set_grad_enabled(trained):
        outputs = vision_tower(pixel_values.to(dtype), output_hidden_states=True, return_dict=True)
    return select_patches(outputs.hidden_states, layer, feature=feature)


def encode_scales(
    encode: Callable[[Tensor], Tensor], pixel_values: Tensor, *, scales: Sequence[int]
) -> Tensor:
    """Patch features at several sizes side by side (S2, arXiv 2403.13043): (I, 3, H, W) -> (I, P, S x V).

    A larger size is cut into squares of the smallest, which `encode` takes, (N, 3, H, W) -> (N, P, V); the
    squares' features are put together again and averaged over areas down to P.
    """
    base = scales[0]
    found = []
    for size in scales:
        scaled = functional.interpolate(pixel_values.float(), size=(size, size), mode="bicubic")
        squares = cut_into_squares(scaled.to(pixel_values.dtype), base)
        # one square after the other, as the original does: memory stays that of one size
        features = torch.cat([encode(square) for square in squares.split(len(pixel_values))])
        side = math.isqrt(features.shape[1])
        maps = features.transpose(1, 2).unflatten(2, (side, side))
        joined = join_squares(maps, size // base)
        averaged = functional.interpolate(joined.float(), size=(side, side), mode="area")
        found.append(averaged.to(features.dtype).flatten(2).transpose(1, 2))
    return torch.cat(found, dim=-1)


def cut_into_squares(pictures: Tensor, side: int) -> Tensor:
    """(I, C, n x side, n x side) -> (n x n x I, C, side, side), row by row, all pictures of a square
    together.
    """
    number = pictures.shape[-1] // side
    cut = pictures.unflatten(3, (number, side)).unflatten(2, (number, side))
    return cut.permute(2, 4, 0, 1, 3, 5).flatten(0, 2)


def join_squares(squares: Tensor, number: int) -> Tensor:
    """`cut_into_squares` back: (n x n x I, C, h, w) -> (I, C, n x h, n x w)."""
    grid = squares.unflatten(0, (number, number, -1))
    return grid.permute(2, 3, 0, 4, 1, 5).flatten(4, 5).flatten(2, 3)


def read_vision_config(folder: Path) -> PretrainedConfig:
    """The vision half of a vision model's configuration (a CLIP with a text half has both)."""
    config = model_config(folder)
    return getattr(config, "vision_config", config)


def load_vision_tower(folder: Path, *, dtype: torch.dtype | str) -> nn.Module:
    """A vision model of transformers (CLIP, or the vision half of another) from its folder.

    `dtype` "auto" keeps what is stored. Raises `UsageError` when it cannot be opened or lacks weights.
    """
    config = model_config(folder)
    is_clip = config.model_type in ("clip", "clip_vision_model")
    chosen: Any = CLIPVisionModel if is_clip else AutoModel
    if is_clip:
        config = getattr(config, "vision_config", config)
    check_part(folder, chosen, config)
    with blame(folder):
        model, report = chosen.from_pretrained(
            str(folder), config=config, dtype=dtype, output_loading_info=True
        )
    if report["missing_keys"]:
        raise UsageError(
            f"the vision tower {folder} lacks weights: {', '.join(sorted(report['missing_keys']))}."
        )
    return model if chosen is CLIPVisionModel else getattr(model, "vision_model", model)
