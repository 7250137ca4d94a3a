"""Names of pictures that lead elsewhere, and pictures that grow: every reader refuses, nothing is fetched."""

import base64
import json
import os
import resource
import socket
import struct
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from llava.chat_images import load_image_from_base64
from llava.errors import UsageError
from llava.eval.mmbench_questions import read_items
from llava.eval.questions import read_questions
from llava.eval.report_examples import data_uri
from llava.eval.science_questions import read_science_questions
from llava.images import image_size, load_image, load_image_processor, process_image
from llava.records import PictureFolder
from llava.train.picture_check import check_pictures
from llava.train.samples import read_samples
from tests.faults.conftest import REFUSED, FaultLog
from tests.faults.hostile import Counter, counting_server
from tests.parity.golden import DATA

SECRET = "secret.png"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """images/ with everything in it that a name could lead to; the secret lies outside."""
    images = tmp_path / "images"
    (images / "below").mkdir(parents=True)
    Image.new("RGB", (8, 8), "red").save(images / "good.png")
    Image.new("RGB", (8, 8), "blue").save(tmp_path / SECRET)
    (images / "out.png").symlink_to(tmp_path / SECRET)
    (images / "out").symlink_to(tmp_path)
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / "zero.png").symlink_to("/dev/zero")
    (images / "broken.png").symlink_to(images / "nothing.png")
    os.mkfifo(images / "fifo.png")
    with socket.socket(socket.AF_UNIX) as server:
        place = os.getcwd()
        os.chdir(images)  # the path of a socket may hold about a hundred letters
        try:
            server.bind("socket.png")
        finally:
            os.chdir(place)
        yield images


def names(folder: Path, url: str) -> list[str]:
    """Names that may not be opened; the secret is behind each that leads anywhere."""
    outside = folder.parent / SECRET
    host = url.removeprefix("http://")
    return [
        f"../{SECRET}", f"below/../../{SECRET}", f"./../{SECRET}", f"below//..//../{SECRET}", str(outside),
        f"//{outside}", f"/proc/self/root{outside}", "out.png", f"out/{SECRET}", f"below/../out/{SECRET}",
        "loop.png", "zero.png", "broken.png", "fifo.png", "socket.png", "below", ".", "..", "/", "",
        " ", "/dev/zero", "/dev/stdin", "/proc/self/environ", "../../../../../../../../dev/zero",
        "good.png\0.jpg", "\0", "good.png/../good.png/..", "a" * 5000, "a/" * 3000 + "b",
        "C:\\Windows\\win.ini", "C:win.ini", "c:/Windows/win.ini", "\\\\server\\share\\a.png",
        "//server/share/a.png", "..\\secret.png", "below\\..\\..\\secret.png", "\\\\?\\C:\\a.png",
        f"{url}/a.png", f"http:/{host}/a.png", f"HTTP://{host}/a.png", f"https://{host}/a.png",
        f"ftp://{host}/a.png", f"file://{outside}", f"FILE:{outside}", f"file:///{outside}",
        "data:image/png;base64,iVBORw0KGgo=", f"s3://{host}/a.png", f" {url}/a.png", f"//{host}/a.png",
        "~/secret.png", f"$HOME/{SECRET}", f"%2e%2e/{SECRET}", f"..%2f{SECRET}", "\ud800.png", "good.png\n",
    ]  # fmt: skip


def write_lines(rows: list[dict], path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def train(name: str, folder: Path) -> object:
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Mira"}]
    rows = [{"id": 1, "image": name, "conversations": turns}]
    return read_samples(write_lines(rows, folder.parent / "train.jsonl"), folder)


def train_list(name: str, folder: Path) -> object:
    turns = [{"from": "human", "value": "<image>\nWho?"}, {"from": "gpt", "value": "Mira"}]
    rows = [{"id": 1, "image": ["good.png", name], "conversations": turns * 2}]
    return read_samples(write_lines(rows, folder.parent / "train.jsonl"), folder)


def questions(name: str, folder: Path) -> object:
    rows = [{"question_id": 1, "image": name, "text": "Who?"}]
    return read_questions(write_lines(rows, folder.parent / "questions.jsonl"), folder)


def science(name: str, folder: Path) -> object:
    rows = [{"id": "1", "image": name, "conversations": [{"from": "human", "value": "Who?"}]}]
    path = folder.parent / "science.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    return read_science_questions(path, folder, ask_for_letter=True)


def mmbench(name: str, folder: Path) -> object:
    if any(letter in name for letter in "\0\n\ud800"):
        raise UsageError("such a cell cannot be written")
    path = folder.parent / "mmbench.tsv"
    path.write_text(f"index\tquestion\timage\tA\n1\tWho?\t{name}\tMira\n", encoding="utf-8")
    return read_items(path)


READERS: list[Callable[[str, Path], object]] = [train, train_list, questions, science, mmbench]


@pytest.fixture
def server() -> Iterator[Counter]:
    with counting_server() as counter:
        yield counter


@pytest.mark.parametrize("read", READERS, ids=lambda read: read.__name__)
def test_names_that_lead_elsewhere_are_refused(
    read: Callable[[str, Path], object], folder: Path, server: Counter, fault_log: FaultLog
) -> None:
    found = names(folder, server.url)
    for name in found:
        with pytest.raises(UsageError):
            read(name, folder)
    if read is not mmbench:
        read("good.png", folder)  # else a reader that refuses everything would pass
    assert server.paths == []
    fault_log(
        "picture name leads out of its folder, or to no file", "refused, 0 requests", REFUSED, len(found)
    )


def test_a_report_shows_no_picture_from_elsewhere(folder: Path, server: Counter, fault_log: FaultLog) -> None:
    pictures = PictureFolder(folder)
    found = names(folder, server.url)
    assert [data_uri(pictures, name) for name in found] == [None] * len(found)
    assert str(data_uri(pictures, "good.png")).startswith("data:image/webp")
    assert data_uri(pictures, {"a": 1}) is None
    assert server.paths == []
    fault_log("the same, in a report", "no picture, 0 requests", REFUSED, len(found))


def chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes = b"", *more: bytes) -> bytes:
    """A PNG whose header says any size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def gif(width: int, height: int) -> bytes:
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b",\0\0\0\0"


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def stretched(width: int, height: int) -> bytes:
    """A whole small file of that many pixels."""
    buffer = BytesIO()
    Image.new("L", (width, height)).save(buffer, format="PNG")
    return buffer.getvalue()


BOMBS = {
    "wide header": png(1_000_000, 1_000_000), "longest header": png(2**31 - 1, 2**31 - 1),
    "strip": stretched(1, 60_000), "strip across": stretched(60_000, 1), "long strip": png(1, 1_000_000),
    "ratio": stretched(2, 2003), "above Pillow's limit": png(14_000, 14_000), "no data": png(8, 8),
    "text chunk": png(8, 8, b"", chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20)))),
    "profile": png(8, 8, b"", chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(80 << 20)))),
    "gif": gif(65_535, 65_535), "bmp": bmp(100_000, 100_000), "negative": bmp(-5, -2**31),
    "empty size": png(0, 8),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_picture_that_grows_is_refused_within_bounds(
    name: str, tmp_path: Path, fault_log: FaultLog
) -> None:
    """The peak of memory counts for the whole process, so only what these pictures add to it is looked at."""
    path = tmp_path / "bomb.png"
    path.write_bytes(BOMBS[name])
    assert len(BOMBS[name]) < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UsageError, match="picture"):
        load_image(path)
    with pytest.raises(UsageError, match="base64"):
        load_image_from_base64(base64.b64encode(BOMBS[name]))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000, "kilobytes"
    fault_log("a small picture file that claims or becomes a huge picture", "refused, below 400 MB", REFUSED)


@pytest.mark.parametrize("mode", ["full", "header"])
def test_every_check_before_training_finds_it(mode: str, folder: Path) -> None:
    (folder / "bomb.png").write_bytes(BOMBS["strip"])
    samples = train("bomb.png", folder)
    with pytest.raises(UsageError, match=r"row 0 .*60000"):
        check_pictures(samples, mode)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        image_size(folder / "bomb.png")


def test_a_strip_is_not_stretched_by_a_large_processor(fault_log: FaultLog) -> None:
    processor = load_image_processor(DATA / "image_processors")
    processor.size, processor.crop_size = {"shortest_edge": 8000}, {"height": 8000, "width": 8000}
    with pytest.raises(UsageError, match="when its short side is made 8000"):
        process_image(Image.new("RGB", (1, 900)), processor, image_aspect_ratio="square")
    fault_log("a strip whose short side is made 8000 pixels", "refused", REFUSED)
