"""A look at one picture file before it is used: what keeps it from being opened, and what is worth knowing.

A picture that passes with `decode` opens in training and answering too: both use `llava.images`.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from PIL import Image

from llava.errors import UsageError
from llava.findings import ERROR, NOTE, Finding, Report
from llava.images import DAMAGE, LARGE_PIXELS, MAX_PIXELS, open_image, size_of, to_rgb
from llava.records import Row

SUFFIXES = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp", ".dib"),
    "TIFF": (".tif", ".tiff"),
}
ORIENTATION = 0x0112
DEPTH_16 = ("I;16", "I", "F")
WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")

MODES = ("auto", "full", "header", "none")
SEEN = {"full": "all, decoded", "header": "headers only", "none": "none"}
"""What a report says of a mode."""
FULL_CHECK_LIMIT = 20_000
MOST_THREADS = 8
PICTURES_AT_ONCE = 4096
"""Pictures that wait for a thread; the list of a whole large data set would itself be large."""

one_large_picture = threading.Lock()
"""Large pictures are decoded one at a time, so that threads do not fill the memory together."""


@dataclass(frozen=True)
class Look:
    """What was seen: the kind and the text of what is wrong (both None if nothing is), and notes as (kind,
    text).
    """

    kind: str | None = None
    problem: str | None = None
    notes: tuple[tuple[str, str], ...] = ()


def choose_mode(mode: str, num_pictures: int) -> str:
    """`full` decodes, `header` reads type and size, `none` does nothing; `auto` decides by their number."""
    if mode != "auto":
        return mode
    return "full" if num_pictures <= FULL_CHECK_LIMIT else "header"


def look_at_all(paths: Iterable[str], look: Callable[[str], Look]) -> Iterator[Look]:
    """What `look` sees of each picture, in order, by several threads."""
    paths = iter(paths)
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        while block := list(islice(paths, PICTURES_AT_ONCE)):
            yield from pool.map(look, block)


@dataclass
class ShownPictures:
    """The distinct pictures of a file: the first row of each as (number, place, id), and the rows that show
    it.
    """

    first: dict[str, tuple[int, str, object]] = field(default_factory=dict)
    uses: Counter[str] = field(default_factory=Counter)

    def add(self, path: str, row: Row, sample_id: object) -> None:
        """A row shows a picture."""
        self.first.setdefault(path, (row.number, row.place, sample_id))
        self.uses[path] += 1

    def check(self, look: Callable[[str], Look], report: Report) -> None:
        """Look at each picture; problems and notes name its first row."""
        for (path, place), seen in zip(self.first.items(), look_at_all(self.first, look), strict=True):
            more = self.uses[path] - 1
            also = f" (shown in {more:,} more row{'s' * (more > 1)})" if more else ""
            if seen.problem:
                report.add(Finding(ERROR, str(seen.kind), seen.problem + also, *place, "image"))
            for kind, text in seen.notes:
                report.add(Finding(NOTE, kind, f"{Path(path).name!r}: {text}{also}", *place, "image"))


def look_at(path: str, *, decode: bool, max_pixels: int = MAX_PIXELS) -> Look:
    """See a picture file as training would open it; `decode` reads all of it, not the header alone.

    `max_pixels`: most pixels of the square that it is padded to.
    """
    try:
        with open_image(path, path) as image:
            if max(image.size) ** 2 > max_pixels:
                return too_large(image.size, max_pixels)
            if decode:
                decode_whole(image)
            return Look(notes=tuple(notes_of(image, path)))
    except FileNotFoundError:
        return Look("picture missing", f"{path} is no longer there; put it back or remove the row")
    except UsageError as error:
        return Look(kind_of_error(str(error), path), str(error).removesuffix("."))


def decode_whole(image: Image.Image) -> None:
    """All pixels, in RGB; large pictures one after the other."""
    if image.width * image.height < LARGE_PIXELS:
        image.load()
        to_rgb(image)
        return
    with one_large_picture:
        image.load()
        to_rgb(image)


def too_large(size: tuple[int, int], max_pixels: int) -> Look:
    """A picture beyond the limit that was asked for."""
    side = max(size)
    found = f"{size[0]} x {size[1]} pixels, {side} x {side} when padded to a square, more than {max_pixels:,}"
    return Look("picture too large", f"{found}; make it smaller or crop it, or raise the limit")


def kind_of_error(message: str, path: str) -> str:
    """The kind of what `llava.images` tells about a file."""
    if Path(path).is_file() and size_of(path) == 0:
        return "picture empty"
    message = message.replace(path, "")
    known = {
        "too large": "picture too large",
        "more than": "picture too large",
        "more memory than": "picture too large",
        "no picture": "picture of another kind",
        "damaged": "picture damaged",
    }
    return next((kind for words, kind in known.items() if words in message), "picture unreadable")


def notes_of(image: Image.Image, path: str) -> Iterator[tuple[str, str]]:
    """(kind, text) of what is done to a picture that opens."""
    suffix = Path(path).suffix.lower()
    if image.format in SUFFIXES and suffix not in SUFFIXES[str(image.format)]:
        found = f"it is a {image.format}, named {suffix or 'without an ending'}"
        yield "picture with a wrong ending", f"{found}; it is opened by its content"
    if has_frames(image):
        yield "picture with several frames", "only the first frame or page is used"
    if image.mode == "CMYK":
        yield (
            "picture in CMYK",
            "it is made RGB without its colour profile; convert it if colours matter",
        )
    if image.mode.startswith(DEPTH_16):
        kept = "scaled to 8 bits" if image.mode.startswith("I;16") else "cut off at 255"
        yield "picture of more than 8 bits", f"its values ({image.mode}) are {kept}"
    if image.mode in WITH_ALPHA or "transparency" in image.info:
        yield "picture with transparency", "transparency is dropped, the colours below it show"
    if orientation_of(image) not in (None, 1):
        found = f"EXIF orientation {orientation_of(image)} is ignored, as in the original"
        yield "picture turned by EXIF", f"{found}; turn the picture itself"


def has_frames(image: Image.Image) -> bool:
    """Whether more than one frame follows; a damaged second frame does not matter, it is never used."""
    try:
        return bool(getattr(image, "is_animated", False))
    except DAMAGE:
        return False


def orientation_of(image: Image.Image) -> int | None:
    """The orientation that EXIF notes, None without one or where its data is damaged."""
    try:
        return image.getexif().get(ORIENTATION)
    except DAMAGE:
        return None
