"""`process_images` equals the original; narrow pictures equal what a correct call gives."""

import functools
import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from llava.images import load_image, load_image_processor, process_image, process_images
from tests.parity.golden import DATA, golden

PIXELS_ATOL = 2e-6  # fp32; worst seen over all 57 cases 5e-7 (pixels), 9e-7 (means and deviations)
GOLDEN = golden("image_processing/process_images.json")
ARRAYS = np.load(DATA / "image_processing" / "pixels_u8.npz")

NOT_COMPARED = {
    "tiny3x3__pad": "the original reads 3 x 3 pixels as channels-first; tiny3x3__pad__explicit is compared",
    "palette__pad__raw": "the original pads a palette with colour number 122; see the test of own modes",
}
"""Arrays of the golden file that ours must not equal, with the reason."""


@functools.cache
def processor() -> object:
    """The golden CLIP processor."""
    return load_image_processor(DATA / "image_processors")


def as_bytes(pixels: torch.Tensor, processor: object) -> np.ndarray:
    """(..., 3, H, W) normalised back to bytes (..., H, W, 3)."""
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return ((pixels * std + mean) * 255).round().to(torch.uint8).movedim(-3, -1).contiguous().numpy()


def model_config(ratio: str | None) -> SimpleNamespace:
    """What `process_images` reads of a model's config."""
    return SimpleNamespace(image_aspect_ratio=ratio, image_grid_pinpoints=GOLDEN["pinpoints"])


def check_bytes(pixels: torch.Tensor, processor: object, wanted: dict) -> None:
    """Bytes equal the golden hash, and the whole array where it is stored."""
    found = as_bytes(pixels, processor)
    assert hashlib.sha256(found.tobytes()).hexdigest() == wanted["u8_sha256"]
    if "u8_key" in wanted:
        assert np.array_equal(found.reshape(-1), ARRAYS[wanted["u8_key"]].reshape(-1))


def check_output(pixels: torch.Tensor, wanted: dict) -> None:
    """Shape, sampled values, mean of each channel, deviation and range."""
    assert list(pixels.shape) == wanted["shape"]
    means = pixels.flatten(0, -3).mean((-1, -2))[: len(wanted["mean"])]
    for found, expected in (
        (pixels.flatten()[torch.tensor(wanted["sample_flat_index"])], wanted["sample_value"]),
        (means, wanted["mean"]),
        (torch.stack([pixels.std(), pixels.min(), pixels.max()]), [wanted[k] for k in ("std", "min", "max")]),
    ):
        torch.testing.assert_close(found, torch.tensor(expected), atol=PIXELS_ATOL, rtol=0)


def case_name(case: dict) -> str:
    """picture-setting, with the file's mode when it was not converted."""
    own_mode = "" if case["converted_to_rgb_first"] else f"-{case['png_mode']}"
    return f"{case['image']}-{case['image_aspect_ratio']}{own_mode}"


def wanted_of(case: dict) -> dict | None:
    """What ours must give; None where a mode of its own led the original astray."""
    if case.get("same_as_converted") is False or (not case["converted_to_rgb_first"] and "error" in case):
        return None
    return case.get("with_explicit_channels_last") or case


def test_every_stored_array_is_compared_or_has_a_reason() -> None:
    compared = [wanted_of(case) or {} for case in GOLDEN["cases"]] + GOLDEN["second_processor_cases"]
    keys = {wanted["u8_key"] for wanted in compared if "u8_key" in wanted}
    assert keys.isdisjoint(NOT_COMPARED)
    assert keys | set(NOT_COMPARED) == set(ARRAYS.files)


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=case_name)
def test_pixels_equal_the_original(case: dict) -> None:
    """A picture in a mode of its own gives what its RGB gives, also where the original fails or is wrong."""
    with Image.open(DATA / case["file"]) as file:
        image = file.convert("RGB") if case["converted_to_rgb_first"] else file.copy()
    assert image.mode == ("RGB" if case["converted_to_rgb_first"] else case["png_mode"])
    pixels = process_images([image], processor(), model_config(case["image_aspect_ratio"]))
    wanted = wanted_of(case)
    if wanted is None:
        converted = [load_image(DATA / case["file"])]
        assert torch.equal(
            pixels, process_images(converted, processor(), model_config(case["image_aspect_ratio"]))
        )
        return
    check_output(pixels, wanted["output"])
    check_bytes(pixels[0], processor(), wanted)


@pytest.mark.parametrize(
    "batch", GOLDEN["batches"], ids=lambda b: f"{len(b['images'])}-{b['image_aspect_ratio']}"
)
def test_pictures_of_one_shape_are_stacked(batch: dict) -> None:
    images = [load_image(DATA / "images" / f"{name}.png") for name in batch["images"]]
    ratio = batch["image_aspect_ratio"]
    if batch.get("equal_to_square"):
        without = process_images(images, processor(), SimpleNamespace())
        assert torch.equal(without, process_images(images, processor(), model_config("square")))
        return
    pixels = process_images(images, processor(), model_config(ratio))
    assert isinstance(pixels, torch.Tensor if batch["container"] == "tensor" else list)
    assert [list(one.shape) for one in pixels] == batch["shapes"]
    for image, one in zip(images, pixels, strict=True):
        assert torch.equal(one, process_images([image], processor(), model_config(ratio))[0])


def test_pinpoints_may_be_text_and_must_be_there() -> None:
    image = load_image(DATA / "images" / "wide.png")
    as_text = SimpleNamespace(image_aspect_ratio="anyres", image_grid_pinpoints=str(GOLDEN["pinpoints"]))
    assert torch.equal(
        process_images([image], processor(), as_text),
        process_images([image], processor(), model_config("anyres")),
    )
    for wrong in (None, [], "open('x')", "[[336]]", [1, 2]):
        config = SimpleNamespace(image_aspect_ratio="anyres", image_grid_pinpoints=wrong)
        with pytest.raises(ValueError, match=r"image_grid_pinpoints is .*anyres needs sizes"):
            process_images([image], processor(), config)


def test_a_picture_of_the_final_size_takes_the_short_way_to_the_same_pixels() -> None:
    image = load_image(DATA / "images" / "exact56.png")
    assert image.size == (56, 56)
    long_way = processor()(image, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]
    assert torch.equal(process_image(image, processor(), image_aspect_ratio="pad"), long_way)
