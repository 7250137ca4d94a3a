"""Picture files to pixels, as LLaVA does it: opened with care, padded, cropped or cut into tiles, normalised.

What PNG, JPEG and the other formats hold becomes RGB at the door by Pillow's `convert`, as the original
does in training: grey and 1-bit pictures get three equal channels, a palette its colours. (16-bit grey is
scaled first, where the original makes it white.) Transparency is dropped, not laid on a background: the
colours below it show, as they did when LLaVA was trained. A rotation noted in EXIF is not applied, for the
same reason; turn such pictures beforehand. The ScienceQA and MMBench drivers of the original skip the
conversion: there a padded palette gets a border of the wrong colour, and padded grey is an error. Pillow
does all of it; torchvision is not needed.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from llava.anyres import Size, divide_to_patches, read_pinpoints, resize_and_pad_image, select_best_resolution
from llava.errors import UsageError
from llava.model_files import blame

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 180_000_000
"""Most pixels of a picture, and of the square that it is padded to."""
MAX_SIDE = 1 << 13
"""Most pixels on a side of what a picture is made into."""
MAX_RATIO = 1000
"""How many times longer than wide a picture may be: a strip grows by as much when its short side does."""
WHOLE = ("pad", "square")
ASPECT_RATIOS = (*WHOLE, "anyres")
"""A square of the mean colour, the middle of the picture, or tiles (LLaVA-1.6)."""
PREPROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")
"""The file of an image processor, and the one where transformers 5 puts it beside other processors."""
SIGNATURES = {
    b"<!DOCTYPE": "an HTML page",
    b"<html": "an HTML page",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML (SVG?) file",
    b"%PDF": "a PDF",
    b"%!PS": "a PostScript file",
    b"PK\x03\x04": "a zip archive",
    b"\x00\x00\x00\x18ftyp": "a HEIC or video file",
    b"\x00\x00\x00\x1cftyp": "a HEIC or video file",
}


def load_image(path: str | Path) -> Image.Image:
    """Open a picture file whole, as RGB; a rotation noted in EXIF is ignored, as in the original.

    Raises `UsageError` that names the file and the remedy: missing, unreadable, cut off, of another kind, or
    too large (also when only the padded square would be).
    """
    try:
        with open_image(path, str(path)) as image:
            image.load()
            return to_rgb(image)
    except FileNotFoundError:
        raise missing_picture(path) from None


def image_size(path: str | Path) -> Size:
    """(width, height) of a picture file, by its header alone; `UsageError` as from `load_image`."""
    try:
        with open_image(path, str(path)) as image:
            return image.size
    except FileNotFoundError:
        raise missing_picture(path) from None


def missing_picture(path: str | Path) -> UsageError:
    """The error for a picture file that is not there."""
    return UsageError(f"the picture {path} does not exist; check the row's image field and the folder.")


@contextmanager
def open_image(source: str | Path | bytes, name: str) -> Iterator[Image.Image]:
    """Pillow's picture of a file or of a file's bytes, not decoded yet.

    What goes wrong here or in the body becomes a `UsageError` that calls the picture `name`; only a missing
    file stays a `FileNotFoundError`.
    """
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            check_size(name, image.size)
            yield image
    except (UsageError, FileNotFoundError):
        raise
    except UnidentifiedImageError:
        raise UsageError(
            f"{name} is {describe(source)}, no picture; use one of {', '.join(FORMATS)}."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"the picture {name} is too large: {error}; make it smaller.") from None
    except (OSError, SyntaxError, ValueError) as error:
        size = len(source) if isinstance(source, bytes) else size_of(source)
        raise UsageError(
            f"the picture {name} ({size} bytes) is damaged: {error}; replace the file."
        ) from None


def size_of(path: str | Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return Path(path).stat().st_size if Path(path).is_file() else 0


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture as RGB; 16-bit grey is scaled to 8 bits (Pillow alone would cut it off at white)."""
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    return image.convert("RGB")


def check_size(path: str | Path, size: tuple[int, int]) -> None:
    """`UsageError` for a picture whose pixels, or whose padded square, are too many."""
    width, height = size
    if max(width, height) ** 2 > MAX_PIXELS:
        raise UsageError(
            f"the picture {path} has {width} x {height} pixels, and {max(width, height)} x "
            f"{max(width, height)} when padded to a square, "
            f"more than {MAX_PIXELS:,}; make it smaller or crop it."
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise UsageError(
            f"the picture {path} has {width} x {height} pixels, one side more than {MAX_RATIO} times the "
            "other; crop it."
        )


def describe(source: str | Path | bytes) -> str:
    """What a file that is no picture seems to be, by its first bytes."""
    if isinstance(source, bytes):
        start = source[:16]
    else:
        with Path(source).open("rb") as file:
            start = file.read(16)
    if not start:
        return "an empty file"
    return next((kind for mark, kind in SIGNATURES.items() if start.startswith(mark)), "of an unknown kind")


def load_image_processor(folder: str | Path) -> Any:
    """The image processor that a folder's preprocessor_config.json describes (Pillow's code, no
    torchvision).
    """
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    if Path(folder).is_dir() and not any((Path(folder) / name).is_file() for name in PREPROCESSOR_NAMES):
        raise UsageError(
            f"{folder} has no {PREPROCESSOR_NAMES[0]}, which says how pictures are prepared; copy it there."
        )
    with blame(Path(folder) / PREPROCESSOR_NAMES[0]):
        image_processor = CLIPImageProcessorPil.from_pretrained(str(folder))
        check_processor(image_processor)
        return image_processor


def check_processor(image_processor: Any) -> None:
    """`UsageError` for sizes and colours that no picture can be brought to."""
    sides = ("height", "width")
    for name in ("crop_size", "size"):
        found = getattr(image_processor, name, None) or {}
        keys = ("shortest_edge",) if name == "size" and "height" not in found else sides
        if any(type(found.get(key)) is not int or not 1 <= found[key] <= MAX_SIDE for key in keys):
            raise UsageError(f"{name} is {found}; {' and '.join(keys)} from 1 to {MAX_SIDE} was wanted.")
    for name in ("image_mean", "image_std"):
        found: Any = getattr(image_processor, name, None)
        is_colour = isinstance(found, list | tuple) and len(found) == 3
        if not is_colour or not all(type(part) in (int, float) and 0 <= part <= 1 for part in found):
            raise UsageError(f"{name} is {found}; three numbers from 0 to 1 were wanted.")
        if name == "image_std" and not all(found):
            raise UsageError(f"image_std is {found}; numbers above 0 were wanted.")
    factor = image_processor.rescale_factor
    if type(factor) not in (int, float) or not 0 < factor <= 1:
        raise UsageError(f"rescale_factor is {factor}; a number above 0, up to 1 was wanted.")


def expand2square(pil_img: Image.Image, background_color: tuple[int, int, int]) -> Image.Image:
    """The picture in the middle of a square of one colour; a square itself is returned as it is."""
    width, height = pil_img.size
    if width == height:
        return pil_img
    side = max(width, height)
    square = Image.new(pil_img.mode, (side, side), background_color)
    square.paste(pil_img, ((side - width) // 2, (side - height) // 2))
    return square


def mean_colour(image_processor: Any) -> tuple[int, int, int]:
    """The processor's mean as bytes, cut to whole numbers."""
    red, green, blue = (int(channel * 255) for channel in image_processor.image_mean)
    return red, green, blue


def process_image(image: Image.Image, image_processor: Any, *, image_aspect_ratio: str) -> "Tensor":
    """A picture to (3, H, W): `pad` keeps all of it in a square of the mean colour, `square` crops the
    middle.
    """
    if image_aspect_ratio not in WHOLE:
        raise UsageError(f"image_aspect_ratio is {image_aspect_ratio!r}; known here: {', '.join(WHOLE)}.")
    if image_aspect_ratio == "pad":
        image = expand2square(to_rgb(image), mean_colour(image_processor))
    side = image_processor.crop_size["height"]
    shortest = image_processor.size.get("shortest_edge") or side
    if shortest**2 * max(image.size) > MAX_PIXELS * min(image.size):
        raise UsageError(
            f"a picture of {image.size[0]} x {image.size[1]} pixels would have more than {MAX_PIXELS:,} when "
            f"its short side is made {shortest}; crop it."
        )
    if (
        image.size == (side, side)
        and image_processor.size.get("shortest_edge") == side
        and image.mode == "RGB"
    ):
        return normalise(image, image_processor)
    # the channels are named: a picture 1 or 3 pixels wide would be taken for channels-first
    pixels = image_processor(to_rgb(image), return_tensors="pt", input_data_format="channels_last")
    return pixels["pixel_values"][0]


def normalise(image: Image.Image, image_processor: Any) -> "Tensor":
    """Pixels of a picture that has its final size: the processor's arithmetic without its resizing."""
    prepare = partial(image_processor, do_resize=False, do_center_crop=False)
    return prepare(image, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]


def process_anyres_image(image: Image.Image, processor: Any, grid_pinpoints: Any) -> "Tensor":
    """A picture to (1 + tiles, 3, H, W): all of it squeezed into one tile, then its tiles row by row.

    The grid is the best of `grid_pinpoints` (sizes as a list, or that list as text).
    """
    import torch

    image = to_rgb(image)
    side, whole_side = processor.crop_size["height"], processor.size["shortest_edge"]
    best = select_best_resolution(image.size, read_pinpoints(grid_pinpoints))
    whole = image.resize((whole_side, whole_side), Image.Resampling.BICUBIC)
    tiles = [whole, *divide_to_patches(resize_and_pad_image(image, best), side)]
    return torch.stack([process_image(tile, processor, image_aspect_ratio="square") for tile in tiles])


def process_images(
    images: Sequence[Image.Image], image_processor: Any, model_cfg: Any
) -> "Tensor | list[Tensor]":
    """The original's function: pictures to pixels by the model's image_aspect_ratio.

    Pictures of equal shape come stacked, (I, 3, H, W) or under `anyres` (I, 1 + tiles, 3, H, W), others as a
    list. Any setting but `pad` and `anyres`, or none at all, crops the middle.
    """
    import torch

    ratio = getattr(model_cfg, "image_aspect_ratio", None)
    if ratio == "anyres":
        pinpoints = getattr(model_cfg, "image_grid_pinpoints", None)
        pixels = [process_anyres_image(image, image_processor, pinpoints) for image in images]
    else:
        ratio = "pad" if ratio == "pad" else "square"
        pixels = [process_image(image, image_processor, image_aspect_ratio=ratio) for image in images]
    if all(one.shape == pixels[0].shape for one in pixels):
        return torch.stack(pixels)
    return pixels


@dataclass(frozen=True)
class Picture:
    """Pixels, (3, H, W) or under anyres (1 + tiles, 3, H, W), and the (width, height) of the file."""

    pixels: "Tensor"
    size: Size


def prepare_picture(image: Image.Image, image_processor: Any, model_cfg: Any) -> Picture:
    """A picture as the model wants it."""
    return Picture(process_images([image], image_processor, model_cfg)[0], image.size)


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "damaged pictures must be errors"
