"""Pictures as the original's chat demo sends them: fitted by a mode, made smaller, written as base64 text."""

import base64
from io import BytesIO

from PIL import Image

from llava.errors import UsageError
from llava.images import expand2square, open_image, to_rgb

CLIP_MEAN = (122, 116, 104)
"""CLIP's mean colour as bytes, cut to whole numbers."""
RESIZED = (336, 336)
WRITABLE = {"JPEG": ("RGB", "L"), "PNG": ("RGB", "RGBA", "L", "LA", "P", "1")}
"""Modes of Pillow that a file of a format can hold."""
MODES = ("Pad", "Default", "Crop", "Resize")


def fit_for_chat(image: Image.Image, mode: str, *, max_len: int = 1344, min_len: int = 672) -> Image.Image:
    """`Pad` to a square, `Resize` to 336 x 336 whatever the shape; `Default` and `Crop` leave it as it is.

    A picture with a side above `max_len` then shrinks, its shape kept, until the longer side is at most
    `max_len` and the shorter at most `min_len`. `UsageError` for another mode.
    """
    if mode not in MODES:
        raise UsageError(f"image_process_mode is {mode!r}; known: {', '.join(MODES)}.")
    if mode == "Pad":
        image = expand2square(to_rgb(image), CLIP_MEAN)
    elif mode == "Resize":
        image = image.resize(RESIZED)
    longest, shortest = max(image.size), min(image.size)
    if longest <= max_len:
        return image
    shape = longest / shortest
    shorter = max(int(min(max_len / shape, min_len, shortest)), 1)
    longer = min(int(shorter * shape), max_len)
    return image.resize((shorter, longer) if image.height > image.width else (longer, shorter))


def as_base64(image: Image.Image, image_format: str) -> str:
    """A picture's file as base64 text; a mode that the format does not know becomes RGB."""
    if image.mode not in WRITABLE.get(image_format, (image.mode,)):
        image = to_rgb(image)
    buffer = BytesIO()
    image.save(buffer, format=image_format)
    return base64.b64encode(buffer.getvalue()).decode()


def load_image_from_base64(image: str | bytes) -> Image.Image:
    """A picture from base64 text, decoded; `UsageError` when it is none or too large."""
    try:
        content = base64.b64decode(image)
    except ValueError as error:
        raise UsageError(f"a picture in base64 text was wanted, but it is none: {error}.") from None
    with open_image(content, "the picture in base64 text") as picture:
        picture.load()
        return picture
