"""Tiles: counted without features, put together as a plain loop would."""

import itertools

import pytest
import torch

from llava.anyres import get_anyres_image_grid_shape, unpad_image
from llava.errors import UsageError
from llava.model.tiles import MERGE_TYPES, Tiling
from tests.tiny import tiny_config, tiny_model

SIDE, TILE, WIDTH = 3, 12, 5
PINPOINTS = ((12, 24), (24, 12), (24, 24), (36, 12))
SIZES = [(12, 12), (100, 30), (30, 100), (200, 3), (3, 200), (37, 36), (1, 1)]
NEWLINE = torch.full((WIDTH,), 7.0)


def by_hand(features: torch.Tensor, size: tuple[int, int], merge: str) -> torch.Tensor:
    """The merged features, one patch at a time."""
    if merge == "flat":
        return torch.cat(list(features))
    across, down = get_anyres_image_grid_shape(size, list(PINPOINTS), TILE)
    rows = []
    for tile_row, row in itertools.product(range(down), range(SIDE)):
        line = []
        for tile_column, column in itertools.product(range(across), range(SIDE)):
            line.append(features[1 + tile_row * across + tile_column, row * SIDE + column])
        rows.append(torch.stack(line))
    grid = torch.stack(rows)
    if merge == "spatial":
        return torch.cat([features[0], *grid])
    kept = unpad_image(grid.permute(2, 0, 1), size).permute(1, 2, 0)
    return torch.cat([features[0], *(torch.cat([line, NEWLINE[None]]) for line in kept)])


@pytest.mark.parametrize(("merge", "size"), itertools.product(MERGE_TYPES, SIZES))
def test_merging_and_counting(merge: str, size: tuple[int, int]) -> None:
    tiling = Tiling(merge, PINPOINTS, TILE, SIDE)
    across, down = tiling.grid(size)
    features = torch.randn(1 + across * down, SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(0))
    newline = NEWLINE if tiling.has_newline else None
    merged = tiling.merged(features, size, newline)
    assert torch.equal(merged, by_hand(features, size, merge))
    assert tiling.count(size) == len(merged)


def test_sizes_must_fit_the_tiles() -> None:
    tiling = Tiling("spatial", PINPOINTS, TILE, SIDE)
    features = torch.zeros(3, SIDE * SIDE, WIDTH)
    with pytest.raises(UsageError, match=r"100 x 100 pixels has 2 x 2 tiles and itself, but 3 came"):
        tiling.merged(features, (100, 100), None)
    with pytest.raises(UsageError, match="image_sizes"):
        tiling.merged(features, None, None)
    with pytest.raises(UsageError, match="image_aspect_ratio 'anyres'"):
        Tiling("spatial", None, TILE, SIDE).merged(features, (100, 100), None)


def test_a_model_needs_one_size_for_each_picture() -> None:
    model = tiny_model(mm_patch_merge_type="spatial_unpad")
    images = [torch.zeros(3, 8, 8), torch.zeros(3, 8, 8)]
    assert [len(one) for one in model.picture_features(images)] == [5, 5], (
        "a picture alone ends with a newline"
    )
    with pytest.raises(UsageError, match="2 pictures came, but 1 image_sizes"):
        model.picture_features(images, [(8, 8)])


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"mm_patch_merge_type": "spatial", "mm_vision_select_feature": "cls_patch"}, "mm_patch_merge_type"),
        ({"s2": True, "s2_scales": "8,16", "mm_vision_select_feature": "cls_patch"}, "s2"),
        (
            {
                "s2": True,
                "s2_scales": "8,16",
                "image_aspect_ratio": "anyres",
                "image_grid_pinpoints": [[8, 8]],
            },
            "s2",
        ),
        ({"s2": True}, "s2_scales"),
        ({"s2": True, "s2_scales": "8,12"}, "s2_scales"),
        ({"image_aspect_ratio": "anyres"}, "image_grid_pinpoints"),
        ({"mm_patch_merge_type": "pool"}, "mm_patch_merge_type"),
        ({"tokenizer_padding_side": "middle"}, "tokenizer_padding_side"),
    ],
)
def test_options_that_do_not_go_together_are_named(changes: dict, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        tiny_config(**changes)


def test_tokens_of_a_picture() -> None:
    assert tiny_config().num_image_tokens((100, 30)) == 4
    tiled = {"image_aspect_ratio": "anyres", "image_grid_pinpoints": "[(8, 16), (16, 8)]"}
    assert tiny_config(**tiled).num_image_tokens((100, 30)) == 12
    assert tiny_config(mm_vision_select_feature="cls_patch", **tiled).num_image_tokens((100, 30)) == 15
    unpadded = tiny_config(mm_patch_merge_type="spatial_unpad", **tiled)
    assert unpadded.num_image_tokens((100, 100)) == 4 + 2 * 3
