"""What the golden data leaves open: ties, tall and wide features, processors whose edge is not their crop."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.anyres import read_pinpoints, select_best_resolution, unpad_image
from llava.errors import UsageError
from llava.images import load_image, load_image_processor, process_anyres_image
from tests.parity.golden import DATA, golden
from tests.parity.test_images import as_bytes


def test_among_equals_the_smallest_then_the_first_wins() -> None:
    assert select_best_resolution((1, 1), [(112, 112), (56, 112), (112, 56)]) == (56, 112)
    assert select_best_resolution((1, 1), [[112, 112], [112, 56], [56, 112]]) == (112, 56)


def test_keeping_pixels_comes_before_wasting_none() -> None:
    assert select_best_resolution((100, 100), [(50, 50), (300, 100)]) == (300, 100)


@pytest.mark.parametrize(
    ("rows", "columns", "size", "shape"),
    [
        (24, 48, (300, 200), (24, 36)),  # wider than high, yet narrower than the grid
        (48, 24, (200, 300), (36, 24)),
        (24, 48, (300, 100), (16, 48)),
        (48, 24, (100, 300), (48, 16)),
        (24, 48, (200, 100), (24, 48)),
    ],
)
def test_padding_is_told_by_the_grids_own_shape(
    rows: int, columns: int, size: tuple[int, int], shape: tuple[int, int]
) -> None:
    features = torch.zeros(2, rows, columns)
    top, left = (rows - shape[0]) // 2, (columns - shape[1]) // 2
    features[:, top : top + shape[0], left : left + shape[1]] = 1
    found = unpad_image(features, size)
    assert tuple(found.shape) == (2, *shape)
    assert bool((found == 1).all())


def test_the_first_tile_is_the_whole_picture_at_the_shortest_edge(tmp_path: Path) -> None:
    """Shortest edge 64, crop 56: the whole picture loses four pixels on each side, as in the original."""
    second = golden("image_processing/process_images.json")["second_processor"]
    config = {"image_processor_type": "CLIPImageProcessor", "resample": 3, **second}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    processor = load_image_processor(tmp_path)
    image = load_image(DATA / "images" / "wide.png")
    tiles = process_anyres_image(image, processor, [(112, 56), (56, 112)])
    assert tuple(tiles.shape) == (3, 3, 56, 56)
    whole = image.resize((64, 64), Image.Resampling.BICUBIC).crop((4, 4, 60, 60))
    assert as_bytes(tiles[0], processor).tobytes() == whole.tobytes()


@pytest.mark.parametrize("pinpoints", ["[(336, 672), (672, 336)]", [[336, 672], [672, 336]]])
def test_pinpoints_are_a_list_or_its_text(pinpoints: object) -> None:
    assert read_pinpoints(pinpoints) == [(336, 672), (672, 336)]


@pytest.mark.parametrize("pinpoints", [None, "", [], "[]", "(1x1),...,(6x6)", 5, [[1, 2, 3]]])
def test_other_pinpoints_are_refused(pinpoints: object) -> None:
    with pytest.raises(UsageError, match="image_grid_pinpoints is"):
        read_pinpoints(pinpoints)
