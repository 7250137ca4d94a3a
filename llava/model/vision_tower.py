"""Pictures to patch features: Hugging Face's CLIP (or SigLIP) vision model, read at one hidden layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


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
