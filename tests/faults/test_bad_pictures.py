"""Picture files of every kind that goes wrong, each seen in a process of its own with its peak memory.

Every file is looked at as the check before a training does, then opened and prepared as training does; both
must come to the same end, and never near the memory that a picture of its claims would take.
"""

import io
import multiprocessing
import os
import resource
import socket
import struct
import tempfile
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from llava.errors import UsageError
from llava.images import WHOLE, load_image, load_image_processor, process_image
from llava.picture_checks import Look, look_at
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.parity.golden import DATA

MOST_BYTES = 1_000_000_000
PROCESSOR = load_image_processor(DATA / "image_processors")
NOBODY = 65534
BIG, SMALL = "<", ">"
"""Byte orders of a TIFF, as `struct` writes them."""


def encoded(
    mode: str = "RGB", kind: str = "PNG", size: tuple[int, int] = (40, 30), **options: object
) -> bytes:
    """A picture in a mode and a format, with some texture."""
    out = io.BytesIO()
    image = Image.effect_noise(size, 90)
    image = image if mode == "L" else image.convert("RGB").convert(mode)
    image.save(out, kind, **options)
    return out.getvalue()


def of_array(values: np.ndarray, kind: str) -> bytes:
    """A picture of raw values, for 16 and 32 bits."""
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


def png_of_claims(
    width: int, height: int, *, rows: int | None = None, kind: tuple[int, int] = (1, 0)
) -> bytes:
    """A black PNG of any size in a few bytes; `rows` are really there (all, unless it is told).

    `kind`: bits and colour type, by default one bit of grey.
    """

    def chunk(name: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + checksum

    header = struct.pack(">IIBBBBB", width, height, *kind, 0, 0, 0)
    squeeze = zlib.compressobj(9)
    bits = kind[0] * {0: 1, 2: 3, 6: 4}[kind[1]]
    line = bytes(1 + (width * bits + 7) // 8)
    data = b"".join(squeeze.compress(line) for _ in range(height if rows is None else rows)) + squeeze.flush()
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def frames(kind: str) -> bytes:
    """Two frames or pages, the first one red."""
    out = io.BytesIO()
    first, second = (Image.new("RGB", (20, 10), colour) for colour in ("red", "blue"))
    first.save(out, kind, save_all=True, append_images=[second])
    return out.getvalue()


def palette(*, transparent: bool) -> bytes:
    """A palette picture, with or without a transparent colour."""
    return encoded("P", "PNG", **({"transparency": 0} if transparent else {}))


def turned() -> bytes:
    """A JPEG that EXIF asks to be turned."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(kind="JPEG", exif=exif)


def damaged_exif() -> bytes:
    """A JPEG whose EXIF block is cut short; its pixels are whole."""
    content = turned()
    place = content.index(b"Exif\0\0") + 6
    return content[: place + 4] + b"\xff" * 8 + content[place + 12 :]


@dataclass(frozen=True)
class Case:
    """A file: its bytes or what makes it in a folder, and what is seen: a kind of error with words of its
    message, or kinds of notes.
    """

    content: bytes | Callable[[Path], None]
    error: str | None = None
    words: str = ""
    notes: frozenset[str] = frozenset()
    name: str = "picture.png"


def bad(
    content: bytes | Callable[[Path], None], error: str, words: str = "", name: str = "picture.png"
) -> Case:
    """A file that is refused."""
    return Case(content, error, words, name=name)


def good(content: bytes, *notes: str, name: str = "picture.png") -> Case:
    """A file that opens, with notes."""
    return Case(content, notes=frozenset(notes), name=name)


def socket_file(path: Path) -> None:
    """A socket under the picture's name."""
    with socket.socket(socket.AF_UNIX) as made:
        folder = os.open(path.parent, os.O_RDONLY)  # a socket's path may have 107 bytes only
        made.bind(f"/proc/self/fd/{folder}/{path.name}")
        os.close(folder)


JPEG = encoded(kind="JPEG", size=(64, 64))
PNG = encoded()
ANOTHER, CUT, LARGE = "picture of another kind", "picture damaged", "picture too large"
DEEP, CLEAR = "picture of more than 8 bits", "picture with transparency"
FRAMES, ENDING = "picture with several frames", "picture with a wrong ending"
SHADES = np.arange(600).reshape(20, 30)
CASES = {
    "JPEG cut by 2 bytes": bad(JPEG[:-2], CUT, "replace the file", "a.jpg"),
    "JPEG cut in half": bad(JPEG[: len(JPEG) // 2], CUT, f"({len(JPEG) // 2} bytes)", "a.jpg"),
    "JPEG cut behind its header": bad(JPEG[:200], CUT, name="a.jpg"),
    "PNG cut in half": bad(PNG[: len(PNG) // 2], CUT),
    "PNG with a wrong checksum": bad(PNG[:40] + bytes([PNG[40] ^ 255]) + PNG[41:], CUT),
    "WEBP cut in half": bad(encoded(kind="WEBP")[:200], CUT, name="a.webp"),
    "GIF cut in half": bad(encoded(kind="GIF")[:700], CUT, name="a.gif"),
    "BMP cut in half": bad(encoded(kind="BMP")[:1000], CUT, name="a.bmp"),
    "TIFF cut in half": bad(encoded(kind="TIFF")[:1000], CUT, name="a.tif"),
    "empty": bad(b"", "picture empty", "an empty file"),
    "zeros": bad(bytes(1000), ANOTHER),
    "HTML": bad(b"\n<!doctype html><title>404", ANOTHER, "an HTML page", "a.jpg"),
    "SVG": bad(b"\xef\xbb\xbf<svg xmlns='x'/>", ANOTHER, "an SVG drawing", "a.svg"),
    "HEIC": bad(b"\0\0\0\x24ftypheic" + bytes(50), ANOTHER, "a HEIC, AVIF or video file", "a.heic"),
    "PDF": bad(b"%PDF-1.7\n", ANOTHER, "a PDF", "a.pdf"),
    "zip": bad(b"PK\x03\x04" + bytes(60), ANOTHER, "a zip archive", "a.jpg"),
    "gzip": bad(b"\x1f\x8b\x08" + bytes(60), ANOTHER, "a gzip archive"),
    "EPS": bad(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", ANOTHER, "a PostScript file", "a.eps"),
    "Photoshop": bad(b"8BPS\0\1" + bytes(60), ANOTHER, "a Photoshop file"),
    "ICO, which Pillow knows": bad(encoded(kind="ICO"), ANOTHER, "of an unknown kind", "a.ico"),
    "1 x 60000": bad(png_of_claims(1, 60_000), LARGE, "60000 x 60000 when padded"),
    "60000 x 1": bad(png_of_claims(60_000, 1), LARGE, "60000 x 60000 when padded"),
    "1 x 1000000": bad(png_of_claims(1, 1_000_000), LARGE, "1 x 1000000 pixels"),
    "60000 x 60000 in a few bytes": bad(png_of_claims(60_000, 60_000, rows=10), LARGE),
    "14000 x 14000, just above the limit": bad(png_of_claims(14_000, 14_000, rows=10), LARGE),
    "60 x 13400, too narrow": bad(png_of_claims(60, 13_400), LARGE, "one side more than 200 times"),
    "12000 x 10000 with transparency": bad(
        png_of_claims(12_000, 10_000, rows=10, kind=(8, 6)), LARGE, "960 MB"
    ),
    "0 x 10": bad(png_of_claims(0, 10), CUT),
    "folder": bad(lambda path: path.mkdir(), "picture unreadable", "is a folder"),
    "pipe": bad(lambda path: os.mkfifo(path), "picture unreadable", "is a pipe or device"),
    "device": bad(lambda path: path.symlink_to("/dev/zero"), "picture unreadable", "is a pipe or device"),
    "socket": bad(socket_file, "picture unreadable", "is a pipe or device"),
    "loop of links": bad(lambda path: path.symlink_to(path), CUT, "symbolic links"),
    "not there": bad(lambda path: None, "picture missing"),
    "link to nothing": bad(lambda path: path.symlink_to(path.parent / "none"), "picture missing"),
    "line break in the name": bad(JPEG[:-2], CUT, name="two\nlines.jpg"),
    "turned by EXIF": good(turned(), "picture turned by EXIF", name="a.jpg"),
    "damaged EXIF": good(damaged_exif(), name="a.jpg"),
    "RGBA": good(encoded("RGBA"), CLEAR),
    "LA": good(encoded("LA"), CLEAR),
    "palette": good(palette(transparent=False)),
    "palette with transparency": good(palette(transparent=True), CLEAR),
    "1 bit": good(encoded("1")),
    "16-bit grey": good(of_array(SHADES.astype(np.uint16), "PNG"), DEEP),
    "32-bit whole numbers": good(of_array(SHADES.astype(np.int32), "TIFF"), DEEP, name="a.tif"),
    "32-bit fractions": good(of_array(SHADES.astype(np.float32), "TIFF"), DEEP, name="a.tif"),
    "CMYK JPEG": good(encoded("CMYK", "JPEG"), "picture in CMYK", name="a.jpg"),
    "YCbCr": good(encoded("YCbCr", "JPEG"), name="a.jpeg"),
    "LAB": good(encoded("LAB", "TIFF"), name="a.tif"),
    # Pillow takes a stream that ends early for a whole one: its missing rows are black
    "PNG with fewer rows than it says": good(png_of_claims(100, 100, rows=10)),
    "12000 x 12000 of which ten rows are there": good(png_of_claims(12_000, 12_000, rows=10)),
    "animated GIF": good(frames("GIF"), FRAMES, name="a.gif"),
    "animated WEBP": good(frames("WEBP"), FRAMES, name="a.webp"),
    "animated PNG": good(frames("PNG"), FRAMES),
    "TIFF of two pages": good(frames("TIFF"), FRAMES, name="a.tiff"),
    "JPEG named .png": good(JPEG, ENDING),
    "no ending": good(JPEG, ENDING, name="picture"),
    "ending in capitals": good(JPEG, name="A.JPG"),
    "bytes behind the end": good(PNG + b"\0" * 100),
    "1 x 1": good(png_of_claims(1, 1)),
    "8000 x 8000, large and allowed": good(png_of_claims(8000, 8000)),
    "70 x 13400, large when padded or cropped": good(png_of_claims(70, 13_400)),
}


@pytest.fixture
def pictures() -> Iterator[Path]:
    """A folder that other users may read too."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def used_memory(*, most: bool = False) -> int:
    """Bytes that this process holds, or held at most since it began to count."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:" if most else "VmRSS:")[1].split()[0]) * 1024


def use(path: Path) -> str | None:
    """Open and prepare a picture as training does: None, or why it cannot be used."""
    try:
        image = load_image(path)
    except UsageError as error:
        return str(error)
    for ratio in WHOLE:
        pixels = process_image(image, PROCESSOR, image_aspect_ratio=ratio)
        assert pixels.shape == (3, 56, 56)
        assert bool(pixels.isfinite().all())
    return None


def see(path: Path, user: int, answers: "multiprocessing.connection.Connection") -> None:
    """In a forked process with bounded memory: the look, what using it says, and the peak."""
    warnings.simplefilter("ignore")  # as a training does; Pillow warns of large pictures and of damaged EXIF
    if user:
        os.setuid(user)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii") if not user else None
    used = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 2 * MOST_BYTES, used + 2 * MOST_BYTES))
    started_with = used_memory()
    look = look_at(str(path), decode=True)
    answers.send((look, use(path), used_memory(most=True) - started_with))


def seen_apart(path: Path, *, user: int = 0) -> tuple[Look, str | None, int]:
    """What `see` finds; a process that was killed fails the test."""
    context = multiprocessing.get_context("fork")
    own, theirs = context.Pipe()
    process = context.Process(target=see, args=(path, user, theirs))
    process.start()
    theirs.close()
    try:
        assert own.poll(60), "the picture is waited for"
        return own.recv()
    except EOFError:
        pytest.fail("the process ended without an answer")
    finally:
        process.kill()
        process.join()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_picture(case: Case, pictures: Path, fault_log: FaultLog) -> None:
    path = pictures / case.name
    if isinstance(case.content, bytes):
        path.write_bytes(case.content)
    else:
        case.content(path)
    look, told, peak = seen_apart(path)
    assert peak < MOST_BYTES, f"{peak / 1e6:.0f} MB"
    assert look.kind == case.error
    assert (look.problem is None) == (told is None), "the check and the use agree"
    if case.error is None:
        assert {kind for kind, _ in look.notes} == case.notes
        fault_log("odd picture", "used, with a note where something is done about it", SURVIVED)
    else:
        assert case.words in str(look.problem)
        assert case.name in str(told)
        fault_log("bad picture", "told by name with the remedy, below 1 GB", REFUSED)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_picture_of_another_user(pictures: Path, fault_log: FaultLog) -> None:
    path = pictures / "mine.png"
    path.write_bytes(PNG)
    path.chmod(0o600)
    look, told, _ = seen_apart(path, user=NOBODY)
    assert look.kind == "picture unreadable"
    assert "check its permissions" in str(told)
    fault_log("bad picture", "told by name with the remedy, below 1 GB", REFUSED)


def test_a_limit_may_be_lower(pictures: Path) -> None:
    (pictures / "a.png").write_bytes(png_of_claims(500, 20))
    assert look_at(str(pictures / "a.png"), decode=True, max_pixels=500 * 500).problem is None
    look = look_at(str(pictures / "a.png"), decode=False, max_pixels=500 * 500 - 1)
    assert look.kind == LARGE
    assert "500 x 500 when padded" in str(look.problem)


def test_the_header_alone_does_not_decode(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (pictures / "a.jpg").write_bytes(JPEG[: len(JPEG) // 2])
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("decoded"))
    assert look_at(str(pictures / "a.jpg"), decode=False) == Look()


def plain(mode: str, kind: str, side: int, **options: object) -> bytes:
    """A black square, in a few bytes where the format can."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        Image.new(mode, (side, side)).save(out, kind, **options)
    return out.getvalue()


LARGEST = {
    "RGB": ("RGB", "PNG", 13_370, {}),
    "RGBA": ("RGBA", "PNG", 10_600, {}),
    "palette": ("P", "GIF", 13_370, {}),
    "16-bit grey": ("I;16", "PNG", 9_900, {}),
    "JPEG": ("RGB", "JPEG", 13_370, {}),
    "progressive JPEG": ("RGB", "JPEG", 9_400, {"progressive": True}),
    "WEBP": ("RGB", "WEBP", 7_400, {}),
    "TIFF in one strip": ("RGB", "TIFF", 13_000, {"compression": "tiff_lzw"}),
}


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "kind", "side", "options"), LARGEST.values(), ids=LARGEST)
def test_the_largest_pictures(
    mode: str, kind: str, side: int, options: dict, pictures: Path, fault_log: FaultLog
) -> None:
    """Just below the limits: what they allow stays below 1 GB beside what the process held before."""
    path = pictures / f"picture.{kind.lower()}"
    path.write_bytes(plain(mode, kind, side, **options))
    look, told, peak = seen_apart(path)
    assert (look.problem, told) == (None, None)
    assert peak < MOST_BYTES, f"{peak / 1e6:.0f} MB"
    fault_log("largest picture allowed", f"{kind} {mode}: {round(peak / 1e6, -2):.0f} MB", SURVIVED)
