"""Pixels equal the original's, picture by picture; narrow ones equal what a correct call gives."""

import hashlib
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llava.images import load_image, load_image_processor, process_image, process_images
from tests.parity.golden import DATA, golden

PIXELS_ATOL = 1e-5


def as_bytes(pixels: torch.Tensor, processor: object) -> np.ndarray:
    """(3, H, W) normalised back to bytes (H, W, 3)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return ((pixels * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def cases() -> list[dict]:
    """Cases of padding and cropping that went through RGB, as our driver does."""
    found = golden("image_processing/process_images.json")["cases"]
    kinds = ("pad", "square")
    return [
        case for case in found if case["image_aspect_ratio"] in kinds and case.get("converted_to_rgb_first")
    ]


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"{case['image']}-{case['image_aspect_ratio']}")
def test_pixels_equal_the_original(case: dict) -> None:
    processor = load_image_processor(DATA / "image_processors")
    pixels = process_image(
        load_image(DATA / case["file"]), processor, image_aspect_ratio=case["image_aspect_ratio"]
    )
    wanted = case.get("with_explicit_channels_last") or case
    if "output" not in wanted or "error" in wanted:
        assert pixels.shape == (3, 56, 56)
        return
    assert list(pixels.shape) == wanted["output"]["shape"][-3:]
    samples = pixels.flatten()[torch.tensor(wanted["output"]["sample_flat_index"])]
    torch.testing.assert_close(
        samples, torch.tensor(wanted["output"]["sample_value"]), atol=PIXELS_ATOL, rtol=0
    )
    if "u8_sha256" in wanted:
        assert hashlib.sha256(as_bytes(pixels, processor).tobytes()).hexdigest() == wanted["u8_sha256"]


def test_a_picture_of_the_final_size_takes_the_short_way_to_the_same_pixels() -> None:
    processor = load_image_processor(DATA / "image_processors")
    image = load_image(DATA / "images" / "exact56.png")
    assert image.size == (56, 56)
    long_way = processor(image, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]
    assert torch.equal(process_image(image, processor, image_aspect_ratio="pad"), long_way)


def test_process_images_stacks_and_refuses_what_it_cannot() -> None:
    processor = load_image_processor(DATA / "image_processors")
    images = [load_image(DATA / "images" / name) for name in ("wide.png", "tall.png")]
    stacked = process_images(images, processor, SimpleNamespace(image_aspect_ratio="pad"))
    assert stacked.shape == (2, 3, 56, 56)
    with pytest.raises(ValueError, match="anyres"):
        process_images(images, processor, SimpleNamespace(image_aspect_ratio="anyres"))
    assert json.loads((DATA / "image_processors" / "preprocessor_config.json").read_text())["crop_size"]
