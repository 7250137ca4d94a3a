"""Pictures that do not come as files of a folder: base64 text in a table, and the bytes behind an address.

What holds for picture files holds for them: the same formats, the same limit, RGB, and one clear message.
"""

import base64
import binascii
import http.client
import urllib.error
import urllib.request

from PIL import Image

from llava.errors import UsageError
from llava.images import open_image, to_rgb

MAX_BYTES = 100_000_000
"""Most bytes that are fetched for one picture."""
TIMEOUT = 30
"""Seconds without an answer after which fetching is given up."""


def picture_of(content: bytes, name: str) -> Image.Image:
    """A picture file's bytes as RGB. `UsageError` that calls it `name`: cut off, no picture, too large."""
    with open_image(content, name) as image:
        image.load()
        return to_rgb(image)


def size_of(content: bytes, name: str) -> tuple[int, int]:
    """(width, height) by a picture file's header alone; `UsageError` as from `picture_of`."""
    with open_image(content, name) as image:
        return image.size


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 text, line breaks within it allowed. `ValueError` that says what is wrong."""
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"no base64 text ({error})") from None


def fetch(address: str) -> bytes:
    """What an http or https address gives; `UsageError` when that fails or is larger than a picture is."""
    request = urllib.request.Request(address, headers={"User-Agent": "llava"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as source:
            content = source.read(MAX_BYTES + 1)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise UsageError(
            f"the picture {address} could not be fetched ({error}); check the address, or download it and "
            "name the file."
        ) from None
    if len(content) > MAX_BYTES:
        raise UsageError(f"{address} gives more than {MAX_BYTES:,} bytes; name the address of a picture.")
    return content
