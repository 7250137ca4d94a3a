"""Picture files to pixels, as LLaVA does it: opened with care, padded to a square or cropped, scaled and
normalised.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageFile, UnidentifiedImageError

from llava.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 180_000_000
"""Most pixels of a picture, and of the square that it is padded to."""
ASPECT_RATIOS = ("pad", "square")
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
        with Image.open(path, formats=FORMATS) as image:
            check_size(path, image.size)
            image.load()
            return image.convert("RGB")
    except FileNotFoundError:
        raise UsageError(
            f"the picture {path} does not exist; check the row's image field and the folder."
        ) from None
    except UnidentifiedImageError:
        raise UsageError(
            f"{path} is {describe_file(path)}, no picture; use one of {', '.join(FORMATS)}."
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise UsageError(f"the picture {path} is too large: {error}; make it smaller.") from None
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, UsageError):
            raise
        size = Path(path).stat().st_size if Path(path).is_file() else 0
        raise UsageError(
            f"the picture {path} ({size} bytes) is damaged: {error}; replace the file."
        ) from None


def check_size(path: str | Path, size: tuple[int, int]) -> None:
    """`UsageError` for a picture whose pixels, or whose padded square, are too many."""
    width, height = size
    if max(width, height) ** 2 > MAX_PIXELS:
        raise UsageError(
            f"the picture {path} has {width} x {height} pixels, and {max(width, height)} x "
            f"{max(width, height)} when padded to a square, "
            f"more than {MAX_PIXELS:,}; make it smaller or crop it."
        )


def describe_file(path: str | Path) -> str:
    """What a file that is no picture seems to be, by its first bytes."""
    with Path(path).open("rb") as file:
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
    try:
        return CLIPImageProcessorPil.from_pretrained(str(folder))
    except OSError as error:
        raise UsageError(f"the image processor of {folder} could not be opened: {error}") from None


def expand2square(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """The picture in the middle of a square of one colour."""
    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new(image.mode, (side, side), background)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def mean_colour(image_processor: Any) -> tuple[int, int, int]:
    """The processor's mean as bytes, cut to whole numbers."""
    red, green, blue = (int(channel * 255) for channel in image_processor.image_mean)
    return red, green, blue


def process_image(image: Image.Image, image_processor: Any, *, image_aspect_ratio: str) -> "Tensor":
    """A picture to (3, H, W): `pad` keeps all of it in a square of the mean colour, `square` crops the
    middle.
    """
    if image_aspect_ratio not in ASPECT_RATIOS:
        raise UsageError(f"image_aspect_ratio is {image_aspect_ratio!r}; known: {', '.join(ASPECT_RATIOS)}.")
    if image_aspect_ratio == "pad":
        image = expand2square(image.convert("RGB"), mean_colour(image_processor))
    side = image_processor.crop_size["height"]
    if (
        image.size == (side, side)
        and image_processor.size.get("shortest_edge") == side
        and image.mode == "RGB"
    ):
        return normalise(image, image_processor)
    # the channels are named: a picture 1 or 3 pixels wide would be taken for channels-first
    pixels = image_processor(image.convert("RGB"), return_tensors="pt", input_data_format="channels_last")
    return pixels["pixel_values"][0]


def normalise(image: Image.Image, image_processor: Any) -> "Tensor":
    """Pixels of a picture that has its final size: the processor's arithmetic without its resizing."""
    prepare = partial(image_processor, do_resize=False, do_center_crop=False)
    return prepare(image, return_tensors="pt", input_data_format="channels_last")["pixel_values"][0]


def process_images(images: Sequence[Image.Image], image_processor: Any, model_cfg: Any) -> object:
    """The original's function: pictures to one tensor (I, 3, H, W) by the model's image_aspect_ratio."""
    import torch

    ratio = getattr(model_cfg, "image_aspect_ratio", None)
    if ratio == "anyres":
        raise UsageError("image_aspect_ratio 'anyres' (LLaVA-1.6) is not supported yet; use pad or square.")
    ratio = "pad" if ratio == "pad" else "square"
    return torch.stack([process_image(image, image_processor, image_aspect_ratio=ratio) for image in images])


assert not ImageFile.LOAD_TRUNCATED_IMAGES, "damaged pictures must be errors"
