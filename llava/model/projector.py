"""Vision width to model width: `linear`, `mlp{N}x_gelu` (N linear layers with GELU between) or `identity`.

The layers are called linear_1, linear_2, ... as in transformers' LLaVA, so that adapters and exports match by
name.
"""

import re

from torch import Tensor, nn

from llava.errors import UsageError


def projector_depth(projector_type: str) -> int:
    """Number of linear layers; 0 for `identity`. `UsageError` for an unknown type."""
    if projector_type == "identity":
        return 0
    if projector_type == "linear":
        return 1
    match = re.fullmatch(r"mlp([1-9]\d?)x_gelu", str(projector_type))
    if match is None:
        raise UsageError(
            f"mm_projector_type is {projector_type!r}; use 'linear', 'identity' or 'mlp2x_gelu' "
            "(any number up to 99 for the 2)."
        )
    return int(match.group(1))


class MultiModalProjector(nn.Module):
    """(I, P, V) -> (I, P, D)."""

    def __init__(self, projector_type: str, vision_width: int, model_width: int) -> None:
        super().__init__()
        self.depth = projector_depth(projector_type)
        if self.depth == 0 and vision_width != model_width:
            raise UsageError(
                f"mm_projector_type 'identity' needs equal widths, but the vision tower has {vision_width} "
                f"and the language model {model_width}; use 'linear' or 'mlp2x_gelu'."
            )
        for number in range(1, self.depth + 1):
            width = vision_width if number == 1 else model_width
            self.add_module(f"linear_{number}", nn.Linear(width, model_width))
        self.act = nn.GELU()

    def forward(self, features: Tensor) -> Tensor:
        for number in range(1, self.depth + 1):
            features = self.get_submodule(f"linear_{number}")(features if number == 1 else self.act(features))
        return features
