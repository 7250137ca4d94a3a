"""The index of samples: equal to the rows, kept for the next start, never trusted when it is not whole."""

import itertools
import json
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.index import start, write_pictures, write_rows
from llava.records import PictureFolder, Problems
from llava.train import index_file, samples
from llava.train.conversations import ConversationDataset, Encoding, check_long_samples, uncertain_samples
from llava.train.index_file import CACHE_NAME, MappedIndex
from llava.train.length_grouping import num_words
from llava.train.row_stream import stream_rows
from llava.train.sample_index import Sample, SampleIndex
from llava.train.samples import DataError, RowReader, read_samples
from tests.unit.train.test_samples import ANSWER, QUESTION, ROWS, TEXT_QUESTION, folder, row, turns

__all__ = ["folder"]


@pytest.fixture(autouse=True)
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Indices of small files are kept too, and never in this user's cache."""
    monkeypatch.setattr(samples, "KEPT_FROM_BYTES", 0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user_cache"))


def write(folder: Path, rows: list[object]) -> Path:
    """A data file with these rows."""
    file = folder / "train.json"
    file.write_text(json.dumps(rows), encoding="utf-8")
    return file


def index_of(folder: Path) -> MappedIndex:
    """The index of the folder's data file, which must be a kept one."""
    index = read_samples(folder / "train.json", folder / "images")
    assert isinstance(index, MappedIndex)
    return index


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Files of which an index is made, one entry each time."""
    made: list[Path] = []
    original = samples.write_samples

    def counted(path: Path, *rest: object) -> dict[str, object]:
        made.append(path)
        return original(path, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(samples, "write_samples", counted)
    return made


def mixed_rows(rng: random.Random, count: int) -> list[object]:
    """Rows of all good kinds, in random order."""
    both = [{"from": "human", "value": "<image>\nAnd <image> this?"}, ANSWER]
    kinds = [
        row(),
        row(image="./sub/otto.png"),
        row(image="staying.png", id=7),
        row(image=["mira.png", "sub/otto.png"], conversations=[QUESTION, ANSWER, *both]),
        row(conversations=[TEXT_QUESTION, {"from": "gpt", "value": " \n"}, QUESTION, ANSWER]),
        turns(TEXT_QUESTION, ANSWER, {"from": "human", "value": "Ünï\u2028cödé 😀 "}, ANSWER),
        turns(ANSWER, TEXT_QUESTION, ANSWER),
        turns({"from": "human", "value": ""}, ANSWER) | {"id": None},
    ]
    return [rng.choice(kinds) for _ in range(count)]


@pytest.mark.parametrize("seed", range(5))
def test_samples_are_those_of_the_rows(seed: int, folder: Path) -> None:
    """The slow twin: every row through the careful reader, kept as objects."""
    file = write(folder, mixed_rows(random.Random(seed), 30))
    reader = RowReader(PictureFolder(folder / "images"), Problems(file))
    found = [reader.read_carefully(one) for one in stream_rows(file, "file")]
    wanted = [entry[0] for entry in found if entry is not None]
    index = index_of(folder)
    assert list(index) == wanted
    assert index[-1] == wanted[-1]
    assert index[3:9:2] == wanted[3:9:2]
    with pytest.raises(IndexError):
        index[30]
    assert any(len(sample.images) > 1 for sample in wanted), "the interesting case"


def test_plain_rows_are_read_quickly_and_alike(folder: Path) -> None:
    good = [value for value in mixed_rows(random.Random(0), 200) if isinstance(value, dict)]
    bad = [value for value, _ in ROWS.values()]
    file = write(folder, [*good, *bad])
    quick = careful = 0
    for one in stream_rows(file, "file"):
        reader = RowReader(PictureFolder(folder / "images"), Problems(file))
        plain = reader.read_plain(one)
        quick += plain is not None
        careful += plain is None
        if plain is not None:
            assert plain == reader.read_carefully(one)
            assert not reader.problems.messages
    assert quick > 100
    assert careful > len(bad), "rows that begin with gpt and all bad ones need care"


@pytest.mark.parametrize("seed", range(5))
def test_arrays_say_what_the_samples_say(seed: int, folder: Path) -> None:
    write(folder, mixed_rows(random.Random(seed), 40))
    index = index_of(folder)
    for one, other in itertools.combinations(range(40), 2):
        images = index[one].images, index[other].images
        assert (index.groups[one] == index.groups[other] >= 0) == (images[0] == images[1] != ())
    assert index.words.tolist() == [num_words([text for _, text in sample.turns]) for sample in index]
    assert index.num_pictures.tolist() == [len(sample.images) for sample in index]
    first_use: dict[str, int] = {}
    for number, sample in enumerate(index):
        for image in sample.images:
            first_use.setdefault(image, number)
    assert [index.picture_path(number) for number in range(len(index.picture_rows))] == list(first_use)
    assert index.picture_rows.tolist() == list(first_use.values())
    for sample, count in zip(index, index.bytes_to_learn(per_turn=10).tolist(), strict=True):
        texts = [text for _, text in sample.turns]
        needed = max(
            next(turn for turn in range(1, len(texts), 2) if texts[turn].strip()),
            max((turn for turn, text in enumerate(texts) if "<image>" in text and sample.images), default=-1),
        )
        assert count == sum(len(text.encode()) + 10 for text in texts[: needed + 1])


def test_the_second_start_takes_up_the_index(
    folder: Path, builds: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    file = write(folder, [turns(ANSWER, TEXT_QUESTION, ANSWER), row()])
    first = list(index_of(folder))
    os.utime(file, (1, 1))
    with caplog.at_level(logging.WARNING):
        caplog.clear()
        assert list(index_of(folder)) == first
    assert "1 x first turn from gpt" in caplog.text, "warnings are not lost"
    assert len(builds) == 1
    assert [entry.suffix for entry in sorted((folder / CACHE_NAME).iterdir())] == [".index", ".lock"]


def test_a_changed_file_is_noticed_even_with_its_old_size_and_time(folder: Path, builds: list[Path]) -> None:
    file = write(folder, [row(id="one")])
    index_of(folder)
    before = file.stat()
    write(folder, [row(id="two")])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    assert [sample.sample_id for sample in index_of(folder)] == ["two"]
    assert len(builds) == 2
    assert len(list((folder / CACHE_NAME).glob("*.index"))) == 1, "the new index replaces the old one"


def test_other_code_or_another_folder_make_their_own_index(
    folder: Path, builds: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write(folder, [row()])
    index_of(folder)
    (folder / "others").mkdir()
    Image.new("RGB", (4, 4)).save(folder / "others" / "mira.png")
    found = read_samples(file, folder / "others")
    assert found[0].images == (str(folder.resolve() / "others" / "mira.png"),)
    monkeypatch.setattr(samples, "digest_of_code", lambda *modules: "edited")
    index_of(folder)
    assert len(builds) == 3


def test_pictures_that_went_or_turned_into_links_are_noticed(folder: Path, builds: list[Path]) -> None:
    write(folder, [row(image="staying.png"), row(image="sub/otto.png")])
    index_of(folder)
    (folder / "images" / "staying.png").unlink()
    (folder / "images" / "staying.png").symlink_to(folder / "images" / "sub" / "otto.png")
    index = index_of(folder)
    assert {Path(sample.images[0]).name for sample in index} == {"otto.png"}
    assert len(set(index.groups.tolist())) == 1
    (folder / "images" / "sub" / "otto.png").unlink()
    with pytest.raises(DataError, match="2 problems"):
        read_samples(folder / "train.json", folder / "images")
    assert len(builds) == 3


def damages(content: bytes) -> Iterator[bytes]:
    """What can become of a file: cut anywhere, emptied, a bit turned, something at its end."""
    for size in (0, 5, len(content) // 2, len(content) - 1):
        yield content[:size]
    for place in (3, len(content) // 2, len(content) - 60, len(content) - 1):
        yield content[:place] + bytes([content[place] ^ 4]) + content[place + 1 :]
    yield content + b"\0"
    yield bytes(len(content))


def test_a_damaged_index_is_made_anew(folder: Path, builds: list[Path]) -> None:
    write(folder, mixed_rows(random.Random(1), 10))
    index = index_of(folder)
    wanted, content = list(index), index.file.read_bytes()
    cases = list(damages(content))
    for damaged in cases:
        index.file.unlink()
        index.file.write_bytes(damaged)
        assert list(index_of(folder)) == wanted
    assert len(builds) == 1 + len(cases)
    assert index.file.read_bytes() == content, "the same rows give the same bytes"


@pytest.mark.parametrize("name", ["rows [1]*.json", "ü" * 100 + ".json", ".json"])
def test_any_name_of_a_data_file_will_do(name: str, folder: Path) -> None:
    for number in range(2):
        (folder / name).write_text(json.dumps([row(id=f"id {number}")]), encoding="utf-8")
        index = read_samples(folder / name, folder / "images")
        assert isinstance(index, MappedIndex)
        assert index[0].sample_id == f"id {number}"
        assert not index.folder_beside("made").exists(), "it went with the index that it was made from"
        index.folder_beside("made").mkdir()
        Path(f"{index.file.with_suffix('')}.x.unfinished").touch()
    assert len(list((folder / CACHE_NAME).glob("*.unfinished"))) == 1, "one was cleared away"


@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_an_index_may_be_read_by_those_who_may_read_the_data(mode: int, folder: Path) -> None:
    write(folder, [row()]).chmod(mode)
    assert index_of(folder).file.stat().st_mode & 0o777 == mode


def test_an_id_may_be_any_text(folder: Path) -> None:
    write(folder, [row(id="half \ud83d"), row(id=10**30)])
    assert [sample.sample_id for sample in index_of(folder)] == ["half \ud83d", str(10**30)]


def test_a_file_that_cannot_be_read_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(folder, [row()])

    def refuse(*args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(index_file.hashlib, "file_digest", refuse)
    with pytest.raises(DataError, match=r"train\.json cannot be read .*check its permissions"):
        read_samples(file, folder / "images")


def test_problems_leave_no_index(folder: Path) -> None:
    write(folder, [row(), row(image="nobody.png")])
    for _ in range(2):
        with pytest.raises(DataError, match=r"nobody\.png"):
            read_samples(folder / "train.json", folder / "images")
    assert not list((folder / CACHE_NAME).glob("*.index"))
    assert not list((folder / CACHE_NAME).glob("*.unfinished"))


def test_where_nothing_can_be_written_there_is_another_place_or_none(
    folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(folder, [row()])
    (folder / CACHE_NAME).touch()
    index = index_of(folder)
    assert index.file.is_relative_to(tmp_path / "user_cache")
    assert CACHE_NAME in caplog.text
    index.file.unlink()
    index.file.parent.rename(tmp_path / "gone")
    index.file.parent.touch()
    found = read_samples(folder / "train.json", folder / "images")
    assert not isinstance(found, MappedIndex)
    assert found[0] == index[0]


def test_a_file_that_grows_while_it_is_read_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(folder, [row()])
    original = samples.stream_rows

    def slow(path: Path, wanted: str) -> Iterator[object]:
        yield from original(path, wanted)
        with file.open("a") as more:
            more.write("\n")

    monkeypatch.setattr(samples, "stream_rows", slow)
    with pytest.raises(DataError, match="changed while it was read"):
        read_samples(file, folder / "images")
    assert not list((folder / CACHE_NAME).glob("*.index"))


def test_small_files_leave_nothing_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(samples, "KEPT_FROM_BYTES", 1 << 20)
    write(folder, [row()])
    assert not isinstance(read_samples(folder / "train.json", folder / "images"), MappedIndex)
    assert not (folder / CACHE_NAME).exists()


def test_only_samples_that_may_lose_something_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound of bytes is safe: whatever it leaves out has a target and its pictures at that length."""
    from llava.conversation import training_template
    from tests.parity.golden import golden_tokenizer

    rng = random.Random(3)
    given = []
    for number in range(60):
        words = [rng.choice(["Why? ", "ü€ ", "So. "]) * rng.choice([1, 5, 40]) for _ in range(4)]
        pairs = [("human", words[0]), ("gpt", words[1]), ("human", words[2]), ("gpt", words[3])]
        images = ()
        if rng.random() < 0.5:
            place = rng.choice([0, 2])
            pairs[place] = ("human", "<image>\n" + pairs[place][1])
            images = ("a.png",)
        given.append(Sample(str(number), number, images, tuple(pairs)))
    seen = []
    for version, length in itertools.product(("v1", "llama_2", "mpt"), (300, 500, 900)):
        encoding = Encoding(training_template(version), golden_tokenizer("nonlegacy"), 16, length)
        dataset = ConversationDataset(given, encoding)
        uncertain = set(uncertain_samples(dataset).tolist())
        for number in set(range(60)) - uncertain:
            assert any(label != -100 for label in dataset.example(number).encoded.labels[1:])
        seen.append(len(uncertain))
    assert sum(0 < count < 60 for count in seen) > 1, "lengths that some samples fit"
    monkeypatch.setattr(ConversationDataset, "example", lambda *_: pytest.fail("nothing is uncertain"))
    certain = [sample for number, sample in enumerate(given) if number not in uncertain]
    check_long_samples(ConversationDataset(certain, encoding))


def test_the_benchmark_starts_twice_and_the_second_time_from_its_index(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    write_pictures(tmp_path / "images", 120)
    write_rows(tmp_path / "rows.json", 228, 120, random.Random(0))
    for _ in range(2):
        found = start(tmp_path, pictures=True)
        assert set(found["seconds"]) >= {"read_samples", "check_pictures", "plan_epoch"}  # type: ignore[call-overload]
        assert 0 < found["imports_mib"] <= found["peak_mib"]  # type: ignore[operator]
    assert len(list((tmp_path / CACHE_NAME).glob("*.index"))) == 1
    index = read_samples(tmp_path / "rows.json", tmp_path / "images")
    assert len(index) == 228
    assert 100 < len(index.picture_rows) <= 120


def test_the_format_is_read_by_its_footer() -> None:
    content = SampleIndex.of([Sample("a", 0, (), (("human", "Ü"), ("gpt", "B")))]).content
    assert content.dtype == np.uint8
    assert index_file.FORMAT == 1
    assert bytes(content[:3]) == "ÜB".encode()
