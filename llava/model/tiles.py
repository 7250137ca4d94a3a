"""Pictures in tiles (anyres, LLaVA-1.6): the features of the whole picture and of its tiles become one row.

`flat` puts them one behind the other as they come, `spatial` row by row over the whole grid of tiles, and
`spatial_unpad` also drops what only saw padding and ends every row with a learned vector, the newline.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.anyres import Size, get_anyres_image_grid_shape, unpad_image, unpadded_shape
from llava.errors import UsageError

MERGE_TYPES = ("flat", "spatial", "spatial_unpad")


@dataclass(frozen=True)
class Tiling:
    """`merge` is one of `MERGE_TYPES`; a tile is `tile` pixels and `side` patches wide and high.

    `pinpoints` are the sizes that a picture may be fitted to, None where pictures are not cut into tiles.
    """

    merge: str
    pinpoints: tuple[Size, ...] | None
    tile: int
    side: int

    @property
    def has_newline(self) -> bool:
        """Whether rows of patches end with a vector of their own."""
        return "unpad" in self.merge

    def grid(self, size: Size) -> tuple[int, int]:
        """Tiles across and down of a picture of (width, height) pixels."""
        if self.pinpoints is None:
            raise UsageError(
                f"a picture came in several tiles, but mm_patch_merge_type {self.merge!r} needs "
                "image_aspect_ratio 'anyres' and image_grid_pinpoints to put them together."
            )
        return get_anyres_image_grid_shape(size, self.pinpoints, self.tile)

    def count(self, size: Size) -> int:
        """Tokens of a picture of (width, height) pixels that is cut into tiles."""
        across, down = self.grid(size)
        whole = self.side * self.side
        if not self.has_newline:
            return whole * (1 + across * down)
        rows, columns = unpadded_shape(down * self.side, across * self.side, size)
        return whole + rows * (columns + 1)

    def merged(self, features: Tensor, size: Size | None, newline: Tensor | None) -> Tensor:
        """One picture's features in order: (1 + tiles, P, D) and `newline` (D,) -> (tokens, D).

        A picture without tiles, (1, P, D), keeps its order, with one newline at its end.
        """
        if self.merge == "flat":
            return features.flatten(0, 1)
        whole = features[0]
        if len(features) == 1:
            return torch.cat([whole, newline[None].to(whole)]) if newline is not None else whole
        if size is None:
            raise UsageError("pictures in tiles need image_sizes, the (width, height) of each file.")
        across, down = self.grid(size)
        if len(features) != 1 + across * down:
            raise UsageError(
                f"a picture of {size[0]} x {size[1]} pixels has {across} x {down} tiles and itself, but "
                f"{len(features)} came; are image_sizes in the order of the pictures?"
            )
        tiles = features[1:].unflatten(0, (down, across)).unflatten(2, (self.side, self.side))
        grid = tiles.permute(4, 0, 2, 1, 3).flatten(1, 2).flatten(2, 3)  # (D, rows, columns)
        if newline is None:
            return torch.cat([whole, grid.flatten(1).T])
        grid = unpad_image(grid, size)
        ends = newline[:, None, None].to(grid).expand(-1, grid.shape[1], 1)
        return torch.cat([whole, torch.cat([grid, ends], dim=-1).flatten(1).T])


def read_size(size: Sequence[int] | Tensor) -> Size:
    """(width, height) from what clients give: a pair, or a tensor of two numbers."""
    width, height = (int(value) for value in size)
    return width, height
