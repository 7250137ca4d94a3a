"""Pictures seen once: what was found good is kept as long as the files are the same, problems never are."""

import json
import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from llava.records import DataError
from llava.train import picture_check
from llava.train.index_file import CACHE_NAME
from llava.train.picture_check import check_pictures
from llava.train.sample_index import Sample

TURNS = (("human", "<image>\nWho?"), ("gpt", "Mira"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three pictures, one of them with two frames, beside a data file; however quick they are seen, it is
    kept.
    """
    monkeypatch.setattr(picture_check, "KEPT_FROM_SECONDS", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))
    for name in ("a.png", "b.png"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "train.json").write_text("[]", encoding="utf-8")
    return tmp_path


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the pictures that are really opened."""
    names: list[str] = []
    original = picture_check.look_at

    def noted(path: str, **options: object) -> object:
        names.append(Path(path).name)
        return original(path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(picture_check, "look_at", noted)
    return names


def check(folder: Path, mode: str = "full") -> None:
    """Check the three pictures as a training does."""
    names = ("a.png", "b.png", "c.gif")
    samples = [Sample(name, row, (str(folder / name),), TURNS) for row, name in enumerate(names)]
    check_pictures(samples, mode, data=folder / "train.json")


def test_unchanged_pictures_are_not_opened_again(
    folder: Path, seen: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        check(folder)
        assert sorted(seen) == ["a.png", "b.png", "c.gif"]
        assert "1 x picture with several frames (first: row 2)" in caplog.text
        seen.clear()
        caplog.clear()
        check(folder)
        assert seen == []
        assert "1 x picture with several frames (first: row 2)" in caplog.text, "notes are kept too"


def test_another_picture_under_the_same_name_is_opened(folder: Path, seen: list[str]) -> None:
    Image.new("RGB", (4, 4), "blue").save(folder / "a.png", "BMP")
    check(folder)
    seen.clear()
    before = (folder / "a.png").stat()
    Image.new("RGB", (4, 4), "red").save(folder / "a.png", "BMP")
    os.utime(folder / "a.png", ns=(before.st_atime_ns, before.st_mtime_ns))
    after = (folder / "a.png").stat()
    assert (after.st_size, after.st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    check(folder)
    assert seen == ["a.png"], "by the time of change, which cannot be set back"


def test_another_mode_trusts_nothing(folder: Path, seen: list[str]) -> None:
    check(folder, "header")
    seen.clear()
    check(folder, "full")
    assert len(seen) == 3


def test_a_problem_is_told_until_it_is_mended(folder: Path, seen: list[str]) -> None:
    good = (folder / "b.png").read_bytes()
    (folder / "b.png").write_bytes(good[: len(good) // 2])
    for _ in range(2):
        with pytest.raises(DataError, match=r"row 1 \(id 'b.png'\), image: .*damaged"):
            check(folder)
    (folder / "b.png").write_bytes(good)
    check(folder)
    seen.clear()
    check(folder)
    assert seen == []


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"settings": 1}', b"\xff", b"null"])
def test_a_damaged_file_is_not_used(folder: Path, seen: list[str], content: bytes) -> None:
    check(folder)
    (kept,) = (folder / CACHE_NAME).glob("*.pictures.json")
    assert json.loads(kept.read_text(encoding="ascii"))["pictures"]
    kept.write_bytes(content)
    seen.clear()
    check(folder)
    assert len(seen) == 3


def test_what_is_quick_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_check, "KEPT_FROM_SECONDS", 60)
    check(folder)
    assert not (folder / CACHE_NAME).exists()


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    folder: Path, seen: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    """The user's own cache takes it instead."""
    (folder / CACHE_NAME).write_text("a file is in the way", encoding="utf-8")
    check(folder)
    assert "not kept in" in caplog.text
    seen.clear()
    check(folder)
    assert seen == []
