"""Geometry of anyres pictures (LLaVA-1.6): the best grid, the picture fitted into it, its tiles, unpadding.

Sizes are (width, height) in pixels; pinpoints are the sizes that a model's config allows, each a whole number
of tiles wide and high. Needs no torch.
"""

import ast
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from PIL import Image

from llava.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

Size = tuple[int, int]
MAX_PINPOINTS = 4096
"""Sizes in a list, or letters of its text."""


def read_pinpoints(pinpoints: str | Sequence[Sequence[int]] | None) -> list[Size]:
    """Pinpoints as a config holds them, a list or its text, as sizes. `UsageError` for anything else."""
    try:
        if len(pinpoints or "") > MAX_PINPOINTS:
            raise ValueError("too long")
        found = ast.literal_eval(pinpoints) if isinstance(pinpoints, str) else pinpoints
        sizes = [(int(width), int(height)) for width, height in found or []]
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, OverflowError):
        sizes = []
    if not sizes:
        raise UsageError(
            f"image_grid_pinpoints is {str(pinpoints)[:200]}; anyres needs sizes, such as [[336, 672], "
            "[672, 336]]."
        )
    return sizes


def scaled_area(size: Size, into: Size) -> int:
    """Pixels of a picture that is scaled to fit into another size, sides cut to whole numbers."""
    scale = min(into[0] / size[0], into[1] / size[1])
    return int(size[0] * scale) * int(size[1] * scale)


def select_best_resolution(original_size: Size, possible_resolutions: Sequence[Size]) -> Size:
    """The size that keeps most of the picture's pixels, then wastes fewest of its own, then comes first."""

    def worth(candidate: Size) -> tuple[int, int]:
        kept = min(scaled_area(original_size, candidate), original_size[0] * original_size[1])
        return kept, kept - candidate[0] * candidate[1]

    width, height = max(possible_resolutions, key=worth)
    return width, height


def resize_and_pad_image(image: Image.Image, target_resolution: Size) -> Image.Image:
    """The whole picture (RGB), scaled to fit, in the middle of a black one of the target size."""
    width, height = image.size
    target_width, target_height = target_resolution
    scale_width, scale_height = target_width / width, target_height / height
    if scale_width < scale_height:
        inner = (target_width, min(math.ceil(height * scale_width), target_height))
    else:
        inner = (min(math.ceil(width * scale_height), target_width), target_height)
    padded = Image.new("RGB", (target_width, target_height))
    resized = image.resize(inner, Image.Resampling.BICUBIC)
    padded.paste(resized, ((target_width - inner[0]) // 2, (target_height - inner[1]) // 2))
    return padded


def divide_to_patches(image: Image.Image, patch_size: int) -> list[Image.Image]:
    """Square tiles row by row; one that reaches over the edge is black there."""
    width, height = image.size
    return [
        image.crop((left, top, left + patch_size, top + patch_size))
        for top in range(0, height, patch_size)
        for left in range(0, width, patch_size)
    ]


def get_anyres_image_grid_shape(
    image_size: Size, grid_pinpoints: str | Sequence[Sequence[int]], patch_size: int
) -> tuple[int, int]:
    """Tiles across and down of a picture."""
    width, height = select_best_resolution(image_size, read_pinpoints(grid_pinpoints))
    return width // patch_size, height // patch_size


def borders(rows: int, columns: int, original_size: Size) -> tuple[int, int]:
    """Rows at the top, as at the bottom, and columns at either side that only saw padding."""
    width, height = original_size
    if width / height > columns / rows:
        return (rows - int(height * (columns / width))) // 2, 0
    return 0, (columns - int(width * (rows / height))) // 2


def unpadded_shape(rows: int, columns: int, original_size: Size) -> tuple[int, int]:
    """Rows and columns that `unpad_image` leaves."""
    above, beside = borders(rows, columns, original_size)
    return rows - 2 * above, columns - 2 * beside


def unpad_image(tensor: "Tensor", original_size: Size) -> "Tensor":
    """Features without the rows or columns that only saw padding: (C, H, W) -> (C, H', W').

    A picture so narrow that not one row or column is its own leaves none.
    """
    rows, columns = tensor.shape[1:]
    above, beside = borders(rows, columns, original_size)
    return tensor[:, above : rows - above, beside : columns - beside]
