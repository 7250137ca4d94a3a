"""Files appear whole or not at all, with the rights of the old ones; links and pipes stay what they are."""

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path

import pytest

from llava import durable
from llava.durable import replacing, sync_folder, write_whole


def content_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.mark.parametrize("alone", [True, False])
def test_until_the_end_the_old_content_stands(alone: bool, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"old")
    with replacing(tmp_path / "a.json", alone=alone) as stream:
        stream.write(b"new")
        stream.flush()
        assert (tmp_path / "a.json").read_bytes() == b"old"
    assert content_of(tmp_path) == {"a.json": b"new"}
    with suppress(KeyError), replacing(tmp_path / "a.json", alone=alone) as stream:
        stream.write(b"half")
        raise KeyError
    assert content_of(tmp_path) == {"a.json": b"new"}


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fails_leaves_the_old_content(
    call: str, alone: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "the disk fails")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(OSError, match="the disk fails"), replacing(tmp_path / "a", alone=alone) as stream:
        stream.write(b"new")
    assert content_of(tmp_path) == {"a": b"old"}


def test_what_a_kill_left_is_overwritten_by_the_only_writer(tmp_path: Path) -> None:
    (tmp_path / "a.unfinished").write_bytes(b"left over, and longer than what comes")
    with replacing(tmp_path / "a", alone=True) as stream:
        stream.write(b"new")
    assert content_of(tmp_path) == {"a": b"new"}


def test_two_writers_do_not_mix(tmp_path: Path) -> None:
    with replacing(tmp_path / "a") as first, replacing(tmp_path / "a") as second:
        first.write(b"first")
        second.write(b"second")
    assert content_of(tmp_path) == {"a": b"first"}, "the last to end stands"


def test_rights_and_links_are_kept(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    target, link = tmp_path / "real" / "a", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_whole(link, "new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    write_whole(target, "secret", mode=0o600)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600


def test_a_private_file_is_private_from_its_first_byte(tmp_path: Path) -> None:
    with replacing(tmp_path / "a", mode=0o600):
        (unfinished,) = tmp_path.iterdir()
        assert stat.S_IMODE(unfinished.stat().st_mode) == 0o600


def test_folders_are_made_and_texts_are_utf8(tmp_path: Path) -> None:
    write_whole(tmp_path / "b" / "c" / "é.json", "ü")
    assert (tmp_path / "b" / "c" / "é.json").read_bytes() == "ü".encode()
    long_name = "n" * 250
    write_whole(tmp_path / long_name, b"x")
    assert (tmp_path / long_name).read_bytes() == b"x"


def test_pipes_are_written_to(tmp_path: Path) -> None:
    """As `/dev/stdout`, which must not be replaced by a file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_whole(pipe, "new")
        assert os.read(reader, 10) == b"new"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    out, into = os.pipe()
    write_whole(Path(f"/dev/fd/{into}"), "new")
    assert os.read(out, 10) == b"new"
    os.close(out)
    os.close(into)


def test_folders_that_cannot_be_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems do not know it, which is no failure; a disk that fails is one."""
    found = [errno.EINVAL]

    def refuse(handle: int) -> None:
        raise OSError(found[0], "no")

    monkeypatch.setattr(durable.os, "fsync", refuse)
    sync_folder(tmp_path)
    found[0] = errno.EIO
    with pytest.raises(OSError, match="no"):
        sync_folder(tmp_path)
