"""One question about named pictures: where they go in the text, where they come from, and what is refused."""

import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from llava.errors import UsageError
from llava.eval import picture_bytes, run_llava

MARK = "<image>"


def written(image: Image.Image, kind: str = "PNG") -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, format=kind)
    return buffer.getvalue()


PICTURE = Image.effect_noise((6, 5), 90)
FILES = {"/grey.png": written(PICTURE), "/page.png": b"<!DOCTYPE html>...", "/cut.png": written(PICTURE)[:60]}


class Files(BaseHTTPRequestHandler):
    """Serves the files above."""

    def do_GET(self) -> None:
        content = FILES.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a server on this machine."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_named_address_is_fetched_as_rgb(address: str, tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "grey.png")
    fetched, opened = run_llava.load_images([f"{address}/grey.png", str(tmp_path / "grey.png")])
    assert fetched.mode == "RGB"
    assert fetched.tobytes() == opened.tobytes() == PICTURE.convert("RGB").tobytes()


@pytest.mark.parametrize(
    ("path", "part"),
    [
        ("/none.png", "could not be fetched (HTTP Error 404"),
        ("/page.png", "an HTML page"),
        ("/cut.png", "damaged"),
    ],
)
def test_an_address_without_a_picture_is_told(address: str, path: str, part: str) -> None:
    with pytest.raises(UsageError) as caught:
        run_llava.load_image(address + path)
    assert part in str(caught.value)
    assert address + path in str(caught.value)


def test_an_endless_file_is_given_up(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_bytes, "MAX_BYTES", 20)
    with pytest.raises(UsageError, match="more than 20 bytes"):
        run_llava.load_image(f"{address}/grey.png")


def test_a_file_that_is_not_there_is_told_with_the_nearest_name(tmp_path: Path) -> None:
    PICTURE.save(tmp_path / "mira.png")
    with pytest.raises(UsageError, match=r"--image-file .*mira.jpg does not exist; did you mean .*mira.png"):
        run_llava.load_image(str(tmp_path / "mira.jpg"))
    with pytest.raises(UsageError, match="is a folder"):
        run_llava.load_image(str(tmp_path))


@pytest.mark.parametrize(
    ("query", "num_pictures", "wanted"),
    [
        ("Who?", 1, "<image>\nWho?"),
        ("Who?", 3, "<image>\n<image>\n<image>\nWho?"),
        ("Is <image-placeholder> in <image-placeholder>?", 2, "Is <image> in <image>?"),
        ("Who is it?\n<image-placeholder>", 1, "Who is it?\n<image>"),
    ],
)
def test_where_pictures_go(query: str, num_pictures: int, wanted: str) -> None:
    run_llava.check_query(query, num_pictures)
    assert run_llava.place_pictures(query, num_pictures, MARK) == wanted


def test_pictures_stand_between_separators() -> None:
    assert run_llava.image_parser(SimpleNamespace(image_file="a.png,b c.png", sep=",")) == [
        "a.png",
        "b c.png",
    ]
    assert run_llava.image_parser(SimpleNamespace(image_file="a,b.png", sep="|")) == ["a,b.png"]


WRONG = {
    "no query": ({"query": ...}, "query not given; needed are model_path, image_file, query"),
    "nothing": ({"query": None, "image_file": "", "model_path": ...}, "model_path, image_file, query not"),
    "no separator": ({"sep": ""}, "--sep is empty"),
    "too few": ({"image_file": "a,b", "query": "<image-placeholder>?"}, "1 times, but --image-file names 2"),
    "too many": ({"query": "<image-placeholder>" * 2}, "2 times, but --image-file names 1"),
    "the token itself": ({"query": "<image>\nWho?"}, "write <image-placeholder>"),
    "template": ({"conv_mode": "vicuna"}, "--conv-mode is 'vicuna'; known:"),
    "temperature": ({"temperature": -1}, "--temperature is -1"),
    "temperature nan": ({"temperature": float("nan")}, "--temperature is nan"),
    "top_p": ({"top_p": 1.5}, "--top_p is 1.5"),
    "beams": ({"num_beams": 0}, "--num_beams is 0"),
    "length": ({"max_new_tokens": 0}, "--max_new_tokens is 0"),
    "picture": ({"image_file": "none.png"}, "none.png does not exist"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "part"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_used_is_told_before_the_model_is_loaded(
    changes: dict[str, object], part: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("llava.model.builder.load_pretrained_model", None)
    monkeypatch.chdir(tmp_path)
    values = {"model_path": "m", "image_file": "a.png", "query": "Who?"} | changes
    with pytest.raises(UsageError) as caught:
        run_llava.eval_model(SimpleNamespace(**{k: v for k, v in values.items() if v is not ...}))
    assert part in str(caught.value)
