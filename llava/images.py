"""Picture files to pixels, as LLaVA does it: opened with care, padded, cropped or cut into tiles, normalised.

What PNG, JPEG and the other formats hold becomes RGB at the door by Pillow's `convert`, as the original
does in training: grey and 1-bit pictures get three equal channels, a palette its colours. (16-bit grey is
scaled first, where the original makes it white.) Transparency is dropped, not laid on a background: the
colours below it show, as they did when LLaVA was trained. A rotation noted in EXIF is not applied, for the
same reason; turn such pictures beforehand. The ScienceQA and MMBench drivers of the original skip the
conversion: there a padded palette gets a border of the wrong colour, and padded grey is an error. Pillow
does all of it; torchvision is not needed.
"""

import codecs
import os
import stat
import struct
import zlib
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
MAX_RATIO = 200
"""Most times that a side is as long as the other: to crop the middle, the shorter one is enlarged."""
MAX_DECODED_BYTES = 900_000_000
"""Most memory that decoding a picture and making it RGB may take."""
DECODER_BYTES = {"WEBP": 12}
PROGRESSIVE_BYTES = 6
"""What decoders hold for each pixel beside the picture."""
LARGE_PIXELS = 16_000_000
"""Squares from here on are never held whole: they are padded and made small in bands."""
BAND_ROWS = 256
WHOLE = ("pad", "square")
ASPECT_RATIOS = (*WHOLE, "anyres")
"""A square of the mean colour, the middle of the picture, or tiles (LLaVA-1.6)."""
PREPROCESSOR_NAMES = ("preprocessor_config.json", "processor_config.json")
"""The file of an image processor, and the one where transformers 5 puts it beside other processors."""
OWN_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\0", b"MM\0*")
SIGNATURES = {
    b"<!doctype": "an HTML page",
    b"<html": "an HTML page",
    b"<svg": "an SVG drawing",
    b"<?xml": "an XML (SVG?) file",
    b"%pdf": "a PDF",
    b"%!ps": "a PostScript file",
    b"\xc5\xd0\xd3\xc6": "a PostScript file",
    b"pk\x03\x04": "a zip archive",
    b"\x1f\x8b": "a gzip archive",
    b"8bps": "a Photoshop file",
    b"\x00\x00\x00\x0cjp  ": "a JPEG 2000 file",
}
"""First bytes in lower case, without blanks before them, and what begins so."""
DAMAGE = (
    *(OSError, EOFError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError),
    *(struct.error, zlib.error),
)
"""What Pillow's readers raise on files that are not what they claim to be."""


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
    if not isinstance(source, bytes):
        refuse_other_files(source)
    try:
        with Image.open(BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as image:
            check_size(name, image.size)
            check_memory(name, image)
            yield image
    except (UsageError, FileNotFoundError):
        raise
    except UnidentifiedImageError as error:
        if first_bytes(source).startswith(OWN_SIGNATURES):
            raise damaged(source, name, "its header cannot be read") from error
        raise UsageError(
            f"{name} is {describe(source)}, no picture; use one of {', '.join(FORMATS)}."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"the picture {name} is too large: {error}; make it smaller.") from None
    except PermissionError as error:
        raise UsageError(f"the picture {name} cannot be read: {error}; check its permissions.") from None
    except MemoryError:
        raise UsageError(f"the picture {name} needs more memory than there is; make it smaller.") from None
    except DAMAGE as error:
        raise damaged(source, name, str(error) or type(error).__name__) from None


def damaged(source: str | Path | bytes, name: str, found: str) -> UsageError:
    """The error for a picture that cannot be read to its end."""
    size = len(source) if isinstance(source, bytes) else size_of(source)
    return UsageError(f"the picture {name} ({size} bytes) is damaged: {found}; replace the file.")


def refuse_other_files(path: str | Path) -> None:
    """`UsageError` for folders, pipes and devices, which would be waited for or never end; a file that is not
    there is left to the opening.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode):
        found = "is a folder" if stat.S_ISDIR(mode) else "is a pipe or device"
        raise UsageError(f"the picture {path} {found}; name a picture file.")


def size_of(path: str | Path) -> int:
    """Bytes of a file, 0 where there is none."""
    return Path(path).stat().st_size if Path(path).is_file() else 0


def to_rgb(image: Image.Image) -> Image.Image:
    """A picture as RGB, itself if it is; 16-bit grey is scaled to 8 bits (Pillow alone would cut it off)."""
    if image.mode == "RGB":
        return image
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


def check_memory(path: str | Path, image: Image.Image) -> None:
    """`UsageError` for a picture that would take too much memory to decode and to make RGB."""
    plain = {"1": 1, "L": 1, "P": 1, "RGB": 0}.get(image.mode, 4)
    if image.mode.startswith("I;16"):
        plain = 5
    extra = DECODER_BYTES.get(str(image.format), 0)
    extra += PROGRESSIVE_BYTES if image.info.get("progressive") else 0
    needed = image.width * image.height * (4 + plain + extra)
    if needed > MAX_DECODED_BYTES:
        raise UsageError(
            f"the picture {path} is too large: {image.width} x {image.height} pixels ({image.format}, "
            f"{image.mode}) take {needed / 1e6:,.0f} MB to decode, more than {MAX_DECODED_BYTES / 1e6:,.0f}; "
            "make it smaller."
        )


def describe(source: str | Path | bytes) -> str:
    """What a file that is no picture seems to be, by its first bytes."""
    start = first_bytes(source)
    if not start:
        return "an empty file"
    if start[4:8] == b"ftyp":
        return "a HEIC, AVIF or video file"
    start = start.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    return next((kind for mark, kind in SIGNATURES.items() if start.startswith(mark)), "of an unknown kind")


def first_bytes(source: str | Path | bytes) -> bytes:
    """What a file begins with."""
    if isinstance(source, bytes):
        return source[:32]
    with Path(source).open("rb") as file:
        return file.read(32)


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


def small_square(image: Image.Image, side: int, image_processor: Any) -> Image.Image:
    """`expand2square` and the processor's resizing to `side`, bit for bit, without the square between them.

    Pillow resizes rows first, each by itself, then columns: so bands of rows may be padded and resized alone.
    """
    whole = max(image.size)
    resample = Image.Resampling(image_processor.resample)
    left, top = (whole - image.width) // 2, (whole - image.height) // 2
    rows = Image.new("RGB", (side, whole))
    for start in range(0, whole, BAND_ROWS):
        end = min(start + BAND_ROWS, whole)
        band = Image.new("RGB", (whole, end - start), mean_colour(image_processor))
        first, last = max(start, top), min(end, top + image.height)
        if first < last:
            band.paste(image.crop((0, first - top, image.width, last - top)), (left, first - start))
        rows.paste(band.resize((side, end - start), resample), (0, start))
    return rows.resize((side, side), resample)


def small_edge(image: Image.Image, edge: int, image_processor: Any) -> Image.Image:
    """The processor's resizing of the shorter side to `edge`, bit for bit, without its copies as arrays."""
    longer = int(edge * max(image.size) / min(image.size))
    size = (edge, longer) if image.width <= image.height else (longer, edge)
    return image.resize(size, Image.Resampling(image_processor.resample))


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
    side = image_processor.crop_size["height"]
    edge = image_processor.size.get("shortest_edge")
    shortest = edge or side
    if image_aspect_ratio != "pad" and shortest**2 * max(image.size) > MAX_PIXELS * min(image.size):
        raise UsageError(
            f"a picture of {image.size[0]} x {image.size[1]} pixels would have more than {MAX_PIXELS:,} when "
            f"its short side is made {shortest}; crop it."
        )
    is_large = max(image.size) ** 2 >= LARGE_PIXELS and edge and not image_processor.size.get("longest_edge")
    if is_large and image_aspect_ratio == "pad":
        image = small_square(to_rgb(image), edge, image_processor)
    elif is_large:
        image = small_edge(to_rgb(image), edge, image_processor)
    elif image_aspect_ratio == "pad":
        image = expand2square(to_rgb(image), mean_colour(image_processor))
    if image.size == (side, side) and edge == side and image.mode == "RGB":
        return normalise(image, image_processor)
    # the channels are named: a picture 1 or 3 pixels wide would be taken for channels-first
    prepare = partial(image_processor, do_resize=False) if is_large else image_processor
    return prepare(to_rgb(image), return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]


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
