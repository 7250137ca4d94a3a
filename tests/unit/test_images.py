"""Picture files that cannot be used are refused by name, with the remedy; modes and sizes of good ones."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from llava import images
from llava.errors import UsageError
from llava.images import load_image, load_image_processor, mean_colour, process_image
from tests.parity.golden import DATA

PROCESSOR = load_image_processor(DATA / "image_processors")
GOOD = DATA / "images" / "wide.png"


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16"])
@pytest.mark.parametrize("ratio", ["pad", "square"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str, ratio: str) -> None:
    suffix = "tiff" if mode == "CMYK" else "png"
    Image.new(mode, (30, 20)).save(tmp_path / f"picture.{suffix}")
    image = load_image(tmp_path / f"picture.{suffix}")
    assert (image.mode, image.size) == ("RGB", (30, 20))
    assert process_image(image, PROCESSOR, image_aspect_ratio=ratio).shape == (3, 56, 56)


def test_16_bit_grey_keeps_its_shades(tmp_path: Path) -> None:
    """The original's conversion makes everything above 255 white."""
    shades = np.array([[0, 255, 256, 0x8000, 0xFFFF]], dtype=np.uint16)
    Image.fromarray(shades).save(tmp_path / "grey.png")
    with Image.open(tmp_path / "grey.png") as raw:
        assert raw.mode == "I;16"
    image = load_image(tmp_path / "grey.png")
    assert [image.getpixel((x, 0)) for x in range(5)] == [(v, v, v) for v in (0, 0, 1, 128, 255)]


def test_transparent_colours_show() -> None:
    """Transparency is dropped, as in the original's training."""
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    opaque = Image.new("RGB", (8, 8), (255, 0, 0))
    for ratio in ("pad", "square"):
        found = process_image(clear, PROCESSOR, image_aspect_ratio=ratio)
        assert torch.equal(found, process_image(opaque, PROCESSOR, image_aspect_ratio=ratio))


def test_a_rotated_photograph_is_not_turned(tmp_path: Path) -> None:
    """JPEG, as cameras write it: EXIF orientation 6 asks for a quarter turn."""
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as raw:
        assert raw.getexif()[0x0112] == 6
    assert load_image(tmp_path / "turned.jpg").size == (40, 20)


@pytest.mark.parametrize("cut", [1, 2, 100])
def test_a_cut_file_is_damaged(tmp_path: Path, cut: int) -> None:
    Image.effect_noise((64, 64), 90).convert("RGB").save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[: -cut - 1])
    with pytest.raises(UsageError, match=r"cut\.jpg \(\d+ bytes\) is damaged: .*replace the file"):
        load_image(tmp_path / "cut.jpg")


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "an empty file"),
        (b"<!DOCTYPE html><html></html>", "an HTML page"),
        (b"<svg xmlns='x'/>", "an SVG drawing"),
        (b"%PDF-1.7", "a PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n", "a PostScript file"),
        (b"nothing that is known", "of an unknown kind"),
    ],
)
def test_a_file_of_another_kind_is_named(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "file.jpg").write_bytes(content)
    with pytest.raises(UsageError, match=f"file.jpg is {kind}.*JPEG, PNG"):
        load_image(tmp_path / "file.jpg")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"none\.png does not exist"):
        load_image(tmp_path / "none.png")


def test_a_strip_is_refused_by_its_padded_square(tmp_path: Path) -> None:
    Image.new("1", (20_000, 1)).save(tmp_path / "strip.png")
    with pytest.raises(UsageError, match=r"20000 x 1 pixels, and 20000 x 20000 when padded"):
        load_image(tmp_path / "strip.png")


def test_a_large_picture_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "large.png")
    monkeypatch.setattr(images, "MAX_PIXELS", 40 * 40 - 1)
    Image.init()  # some of Pillow's readers load pictures of their own when they are imported
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(UsageError, match=r"40 x 30 pixels"):
        load_image(tmp_path / "large.png")


def test_the_first_picture_of_an_animation(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "two.gif").getpixel((0, 0)) == (255, 0, 0)


def test_a_rotation_tag_is_ignored() -> None:
    with Image.open(DATA / "images" / "exif_rot.png") as raw:
        assert load_image(DATA / "images" / "exif_rot.png").size == raw.size


def test_padding_has_the_mean_colour_and_keeps_the_whole_picture() -> None:
    image = Image.new("RGB", (40, 20), "white")
    pixels = process_image(image, PROCESSOR, image_aspect_ratio="pad")
    border = process_image(
        Image.new("RGB", (40, 40), mean_colour(PROCESSOR)), PROCESSOR, image_aspect_ratio="pad"
    )
    assert torch.equal(pixels[:, 0], border[:, 0])
    assert torch.equal(pixels[:, -1], border[:, -1])
    assert not torch.equal(pixels[:, 28], border[:, 28])


@pytest.mark.parametrize("size", [(200, 3), (3, 200), (101, 60), (60, 101), (97, 97), (1, 2), (1000, 999)])
def test_a_large_picture_is_prepared_without_copies(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bit for bit what the square as a whole becomes, with bands that end anywhere, and the crop."""
    image = Image.effect_noise(size, 90).convert("RGB")
    wanted = {ratio: process_image(image, PROCESSOR, image_aspect_ratio=ratio) for ratio in images.WHOLE}
    monkeypatch.setattr(images, "LARGE_PIXELS", 1)
    monkeypatch.setattr(images, "expand2square", lambda *_: pytest.fail("the whole square"))
    for rows in (1, 7, 64, 5000):
        monkeypatch.setattr(images, "BAND_ROWS", rows)
        for ratio in images.WHOLE:
            assert torch.equal(process_image(image, PROCESSOR, image_aspect_ratio=ratio), wanted[ratio])


def test_unknown_aspect_ratios_are_refused() -> None:
    with pytest.raises(UsageError, match="pad, square"):
        process_image(load_image(GOOD), PROCESSOR, image_aspect_ratio="anyres")


def test_a_folder_without_a_processor_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no preprocessor_config\.json.*copy it there"):
        load_image_processor(tmp_path)


def test_opening_and_preparing_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        process_image(
            load_image(GOOD), load_image_processor(DATA / "image_processors"), image_aspect_ratio="pad"
        )
