"""Squares, other processors, and pictures that were handed to the original in their own mode."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from llava.images import expand2square, load_image, load_image_processor, process_image
from tests.parity.golden import DATA, golden
from tests.parity.test_images import PIXELS_ATOL, as_bytes

GOLDEN = golden("image_processing/process_images.json")


@pytest.mark.parametrize(
    "case", golden("image_processing/geometry.json")["expand2square"], ids=lambda c: c["image"]
)
def test_squares_are_equal(case: dict) -> None:
    with Image.open(DATA / "images" / f"{case['image']}.png") as file:
        image = file.convert("RGB")
    square = expand2square(image, tuple(case["background"]))
    assert list(square.size) == case["out_wh"]
    assert hashlib.sha256(square.tobytes()).hexdigest() == case["sha256_rgb"]


@pytest.mark.parametrize(
    "case", GOLDEN["second_processor_cases"], ids=lambda c: f"{c['image']}-{c['image_aspect_ratio']}"
)
def test_a_processor_of_other_sizes_and_means(case: dict, tmp_path: Path) -> None:
    """Shortest edge 64, crop 56."""
    config = {"image_processor_type": "CLIPImageProcessor", "resample": 3, **GOLDEN["second_processor"]}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config), encoding="utf-8")
    processor = load_image_processor(tmp_path)
    image = load_image(DATA / "images" / f"{case['image']}.png")
    pixels = process_image(image, processor, image_aspect_ratio=case["image_aspect_ratio"])
    samples = pixels.flatten()[torch.tensor(case["output"]["sample_flat_index"])]
    wanted = torch.tensor(case["output"]["sample_value"])
    torch.testing.assert_close(samples, wanted, atol=PIXELS_ATOL, rtol=0)
    assert hashlib.sha256(as_bytes(pixels, processor).tobytes()).hexdigest() == case["u8_sha256"]


def test_own_modes_are_equal_where_the_original_was_right() -> None:
    """The original pads a palette with colour number 122 and fails for grey; ours goes through RGB."""
    processor = load_image_processor(DATA / "image_processors")
    compared = 0
    for case in GOLDEN["cases"]:
        if not case["converted_to_rgb_first"] and case.get("same_as_converted"):
            with Image.open(DATA / case["file"]) as image:
                pixels = process_image(image, processor, image_aspect_ratio=case["image_aspect_ratio"])
            assert hashlib.sha256(as_bytes(pixels, processor).tobytes()).hexdigest() == case["u8_sha256"]
            compared += 1
    assert compared >= 5


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
