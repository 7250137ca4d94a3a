"""Rows read one by one are those of the file read whole, and so are the messages, however it is cut."""

import json
import random
import re
import tracemalloc
from pathlib import Path

import pytest

from llava.records import DataError, Row, read_rows
from llava.train.row_stream import stream_rows
from tests.unit.train.test_samples import FILES

WANTED = "conversation file"
CHUNKS = [2, 3, 64, 1 << 16]


def outcome(read: object, path: Path, **options: int) -> list[Row] | str:
    """The rows, or the message, without the row that only the stream knows where JSON has no line."""
    try:
        return list(read(path, WANTED, **options))  # type: ignore[operator]
    except DataError as error:
        return re.sub(r"is not JSON: row \d+: ", "is not JSON: ", str(error))


@pytest.mark.parametrize("content", [content for content, _ in FILES.values()], ids=FILES)
def test_messages_are_those_of_the_whole_file(content: str | bytes, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    wanted = outcome(read_rows, file)
    chunks = CHUNKS if len(content) < 10_000 else CHUNKS[-1:]
    for size in chunks:
        assert outcome(stream_rows, file, chunk_bytes=size) == wanted


def any_value(rng: random.Random, depth: int = 0) -> object:
    """A JSON value with everything that a cut could fall into."""
    texts = ["", 'a "quoted" \\ word', "ü€😀", "\u2028 line", "tab\t\n", "]},{[", "\x7f"]
    plain = [rng.choice(texts), rng.randint(-(10**12), 10**12), rng.random() * 1e-7, True, False, None, -0.5]
    kind = rng.randrange(4) if depth < 3 else 0
    if kind == 1:
        return [any_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    if kind == 2:
        return {f"k{number}": any_value(rng, depth + 1) for number in range(rng.randrange(4))}
    return rng.choice(plain)


def documents(seed: int) -> list[str]:
    """One list of values as an array and as lines, in several spellings."""
    rng = random.Random(seed)
    values = [any_value(rng) for _ in range(rng.randrange(1, 6))]
    rows = [{"row": value} for value in values]
    return [
        json.dumps(values),
        json.dumps(values, ensure_ascii=False, indent=2) + "\r\n",
        "\ufeff \n" + json.dumps(values, separators=(",", ":")),
        "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "\r\n\r\n".join(json.dumps(row) for row in rows) + "\n\n",
    ]


@pytest.mark.parametrize("seed", range(12))
def test_rows_are_those_of_the_whole_file(seed: int, tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for text in documents(seed):
        file.write_bytes(text.encode())
        wanted = outcome(read_rows, file)
        assert isinstance(wanted, list)
        for size in CHUNKS:
            assert outcome(stream_rows, file, chunk_bytes=size) == wanted


@pytest.mark.parametrize("seed", range(25))
def test_damaged_files_have_the_same_message(seed: int, tmp_path: Path) -> None:
    rng = random.Random(1000 + seed)
    file = tmp_path / "rows.json"
    refused = 0
    for text in documents(seed):
        place = rng.randrange(len(text))
        damage = rng.choice(["", "]", "}", ",", "'", '"', "\n", "x", "[", "\\", "NaN", "\ud800"])
        damaged = text[:place] + damage + text[place + rng.randrange(3) :]
        file.write_bytes(damaged.encode("utf-8", "surrogatepass"))
        wanted = outcome(read_rows, file)
        refused += isinstance(wanted, str)
        for size in (2, 17, 1 << 16):
            assert outcome(stream_rows, file, chunk_bytes=size) == wanted
    assert refused, "some damage must have been damage"


def test_the_file_is_never_in_memory_as_a_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    row = {"id": "a", "conversations": [{"from": "human", "value": "word " * 200}]}
    file.write_text(json.dumps([row] * 20_000), encoding="utf-8")
    tracemalloc.start()
    count = sum(1 for _ in stream_rows(file, WANTED))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert most < file.stat().st_size / 10
