"""Geometry (squares, grids, tiles, unpadding), another processor, and narrow pictures resized by hand."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.anyres import (
    divide_to_patches,
    get_anyres_image_grid_shape,
    read_pinpoints,
    resize_and_pad_image,
    select_best_resolution,
    unpad_image,
)
from llava.images import expand2square, load_image, load_image_processor, process_image, process_images
from tests.parity.golden import DATA, golden
from tests.parity.test_images import GOLDEN, as_bytes, check_bytes, check_output, model_config

GEOMETRY = golden("image_processing/geometry.json")


def picture(name: str) -> Image.Image:
    """A golden picture as RGB."""
    return load_image(DATA / "images" / f"{name}.png")


def sha256(image: Image.Image) -> str:
    """Hash of a picture's bytes."""
    return hashlib.sha256(image.tobytes()).hexdigest()


@pytest.mark.parametrize("case", GEOMETRY["expand2square"], ids=lambda c: c["image"])
def test_squares_are_equal(case: dict) -> None:
    image = picture(case["image"])
    assert list(image.size) == case["in_wh"]
    square = expand2square(image, tuple(case["background"]))
    assert list(square.size) == case["out_wh"]
    assert sha256(square) == case["sha256_rgb"]
    assert (square is image) == case["same_object"]


@pytest.mark.parametrize("case", GEOMETRY["resize_and_pad"], ids=lambda c: f"{c['image']}-{c['target_wh']}")
def test_pictures_fit_into_a_resolution(case: dict) -> None:
    padded = resize_and_pad_image(picture(case["image"]), tuple(case["target_wh"]))
    assert list(padded.size) == case["out_wh"]
    assert sha256(padded) == case["sha256_rgb"]


@pytest.mark.parametrize("case", GEOMETRY["divide_to_patches"], ids=lambda c: f"{c['image']}-{c['patch']}")
def test_tiles_are_equal(case: dict) -> None:
    tiles = divide_to_patches(picture(case["image"]), case["patch"])
    assert [list(tile.size) for tile in tiles] == case["sizes"]
    assert len(tiles) == case["count"]
    assert (sha256(tiles[0]), sha256(tiles[-1])) == (case["sha256_first"], case["sha256_last"])


def test_the_best_resolutions_are_equal() -> None:
    assert len(GEOMETRY["select_best_resolution"]) == 32
    for case in GEOMETRY["select_best_resolution"]:
        pinpoints = read_pinpoints(GEOMETRY["pinpoint_sets"][case["pinpoints"]])
        assert list(select_best_resolution(tuple(case["size_wh"]), pinpoints)) == case["best_wh"], case


def test_the_grids_are_equal() -> None:
    forms = {"string": str, "list": list}
    assert {case["pinpoints_as"] for case in GEOMETRY["grid_shape"]} == set(forms)
    for case in GEOMETRY["grid_shape"]:
        pinpoints = forms[case["pinpoints_as"]](GEOMETRY["pinpoint_sets"][case["pinpoints"]])
        found = get_anyres_image_grid_shape(tuple(case["size_wh"]), pinpoints, case["patch"])
        assert list(found) == case["grid_wh"], case


@pytest.mark.parametrize("case", GEOMETRY["unpad"], ids=lambda c: f"{c['chw']}-{c['original_wh']}")
def test_unpadding_is_equal(case: dict) -> None:
    channels, height, width = case["chw"]
    features = torch.arange(channels * height * width).view(channels, height, width)
    found = unpad_image(features, tuple(case["original_wh"]))
    assert list(found.shape) == case["out_shape"]
    ends = (found.flatten()[0].item(), found.flatten()[-1].item()) if found.numel() else (None, None)
    assert ends == (case["first"], case["last"])


@pytest.mark.parametrize(
    "case", GOLDEN["second_processor_cases"], ids=lambda c: f"{c['image']}-{c['image_aspect_ratio']}"
)
def test_a_processor_of_other_sizes_and_means(case: dict, tmp_path: Path) -> None:
    """Shortest edge 64, crop 56."""
    config = {"image_processor_type": "CLIPImageProcessor", "resample": 3, **GOLDEN["second_processor"]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    processor = load_image_processor(tmp_path)
    pixels = process_images([picture(case["image"])], processor, model_config(case["image_aspect_ratio"]))
    check_output(pixels, case["output"])
    check_bytes(pixels[0], processor, case)


@pytest.mark.parametrize("name", ["one_px", "one_row", "one_col", "tiny3x3", "row3"])
@pytest.mark.parametrize("ratio", ["pad", "square"])
def test_narrow_pictures_are_resized_as_pictures(name: str, ratio: str) -> None:
    """By hand with Pillow; the original takes a side of 1 or 3 pixels for the channels."""
    processor = load_image_processor(DATA / "image_processors")
    image = load_image(DATA / "images" / f"{name}.png")
    pixels = process_image(image, processor, image_aspect_ratio=ratio)
    if ratio == "pad":
        image = expand2square(image, (122, 116, 104))
    scale = 56 / min(image.size)
    width, height = (int(side * scale) for side in image.size)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - 56) // 2, (height - 56) // 2
    cropped = resized.crop((left, top, left + 56, top + 56))
    assert as_bytes(pixels, processor).tobytes() == cropped.tobytes()
