"""The conversation file: a malformed row gives one message with file, row, field and remedy."""

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from llava.errors import UsageError
from llava.records import SHOWN_PROBLEMS
from llava.train.picture_check import check_pictures
from llava.train.samples import DataError, Sample, read_samples

QUESTION = {"from": "human", "value": "<image>\nWho is this?"}
TEXT_QUESTION = {"from": "human", "value": "Who is the baker?"}
ANSWER = {"from": "gpt", "value": "Mira"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pictures with a picture outside, and links to it."""
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    for name in ("mira.png", "sub/otto.png", "../outside.png"):
        Image.new("RGB", (4, 4), "red").save(images / name)
    (images / "leaving.png").symlink_to(tmp_path / "outside.png")
    (images / "staying.png").symlink_to(images / "mira.png")
    (images / "loop.png").symlink_to(images / "loop.png")
    (images / "leaving_folder").symlink_to(tmp_path)
    os.mkfifo(images / "pipe.png")
    return tmp_path


def read(folder: Path, content: str | bytes | object) -> list[Sample]:
    """Samples of a file with this content (rows are written as JSON)."""
    path = folder / "train.json"
    if not isinstance(content, str | bytes):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_samples(path, folder / "images")


def row(**changes: object) -> dict[str, object]:
    """A good row with changes; a value of `...` removes the field."""
    good = {"id": "a7", "image": "mira.png", "conversations": [QUESTION, ANSWER]} | changes
    return {key: value for key, value in good.items() if value is not ...}


def turns(*values: object) -> dict[str, object]:
    """A good row without a picture, with these turns."""
    return row(image=..., conversations=list(values))


GOOD = json.dumps(row())

FILES = {
    "empty": (b"", ["is empty"]),
    "blank": (b" \n\t\n", ["is empty"]),
    "cut off in a string": (f"[{GOOD}, {GOOD}"[:-30], ["line 1", "ends in the middle"]),
    "cut off between rows": (f"[{GOOD},\n", ["line 2", "ends in the middle"]),
    "trailing comma in the array": (f"[{GOOD},\n]", ["line 2, column 1", "comma", "remove it"]),
    "trailing comma in an object": (f"[{GOOD[:-1]},}}]", ["line 1", "comma"]),
    "comment": (f"[\n// people\n{GOOD}]", ["line 2, column 1", "a comment, '// people'", "remove it"]),
    "comment behind a comma": (f"[{GOOD}, # the second\n{GOOD}]", ["line 1", "a comment"]),
    "comment of several lines": (f"[{GOOD},\n/* one\ntwo */ {GOOD}]", ["line 2, column 1", "a comment"]),
    "comma before a comment": (f"[{GOOD}, // last\n]", ["line 1", "a comment"]),
    "lines that end with commas": (
        f"{GOOD},\n{GOOD},\n",
        ["line 1", "a comma behind the row", "put [ and ]"],
    ),
    "number of 5000 digits": (
        '[{"id": ' + "1" * 5000 + "}]",
        ["row 0: a number of more than 100 digits", "as a text"],
    ),
    "a text file": ("id,image,text\n1,a.png,Who?\n", ["line 1, column 1", "Expecting value"]),
    "zip archive": (b"PK\x03\x04\x14\x00\x00\x00", ["NUL byte"]),
    "missing comma": (f"[{GOOD}\n{GOOD}]", ["line 2, column 1", "Expecting ','"]),
    "single quotes": ("[{'id': 1}]", ["double quotes"]),
    "line break in a text": ('[{"id": "a\nb"}]', ["line 1", "line break"]),
    "two arrays": (f"[{GOOD}][{GOOD}]", ["Extra data"]),
    "top level object": (json.dumps({"data": [row()]}, indent=1), ["top level is an object", "array", "["]),
    "top level string": ('"rows"', ["top level is a text"]),
    "top level number": ("3", ["top level is a number"]),
    "no rows": ("[]", ["no rows"]),
    "NaN": ('[{"id": 1}, {"id": NaN}]', ["row 1: NaN is not JSON"]),
    "Infinity": ('[{"id": -Infinity}]', ["-Infinity is not JSON"]),
    "key twice": ('[{"id": 1, "id": 2}]', ["row 0: the key 'id' stands twice"]),
    "nested too deeply": ("[" * 100_000, ["nested too deeply"]),
    "gzip": (b"\x1f\x8b\x08\x00", ["gzip"]),
    "UTF-16": (f"[{GOOD}]".encode("utf-16"), ["UTF-16", "UTF-8"]),
    "Latin-1": ('[\n{"id": "M\xfcller"}]'.encode("latin-1"), ["line 2", "0xfc", "UTF-8"]),
    "NUL byte": (b'[\n\n{"id": "\0"}]', ["line 3", "NUL"]),
    "JSON lines with a broken line": (f"{GOOD}\n{{broken}}\n{GOOD}\n", ["line 2, column 2"]),
    "JSON lines with a number": (f"{GOOD}\n7\n", ["line 2", "found a number"]),
}

ROWS = {
    "row is a list": ([QUESTION], ["row 1", "found an array", "object"]),
    "row is null": (None, ["row 1", "found null"]),
    "id is a list": (row(id=[1]), ["row 1", "id", "found an array"]),
    "id is true": (row(id=True), ["id", "true or false"]),
    "no conversations": (row(conversations=...), ["row 1 (id 'a7'), conversations", "is missing", "add it"]),
    "conversations misspelt": (
        row(conversations=..., conversation=[]),
        ["rename 'conversation' to 'conversations'"],
    ),
    "messages": (row(conversations=..., messages=[]), ["rename 'messages' to 'conversations'"]),
    "conversations null": (row(conversations=None), ["conversations", "found null"]),
    "conversations a text": (row(conversations="Hi"), ["conversations", "found a text"]),
    "conversations empty": (row(conversations=[]), ["an empty array"]),
    "turn is a text": (turns("Hi", ANSWER), ["conversations[0]", "found a text"]),
    "turn without from": (turns({"value": "Hi"}, ANSWER), ["conversations[0].from", "is missing"]),
    "turn with role": (turns({"role": "human", "value": "Hi"}, ANSWER), ["rename 'role' to 'from'"]),
    "turn without value": (turns(TEXT_QUESTION, {"from": "gpt"}), ["conversations[1].value", "is missing"]),
    "turn with content": (
        turns(TEXT_QUESTION, {"from": "gpt", "content": "x"}),
        ["rename 'content' to 'value'"],
    ),
    "value null": (
        turns(TEXT_QUESTION, {"from": "gpt", "value": None}),
        ["conversations[1].value", "found null"],
    ),
    "value number": (turns(TEXT_QUESTION, {"from": "gpt", "value": 3}), ["value", "found a number (3)"]),
    "value list": (turns(TEXT_QUESTION, {"from": "gpt", "value": ["x"]}), ["value", "found an array"]),
    "half a character": (turns(TEXT_QUESTION, {"from": "gpt", "value": "a\ud83d"}), ["half of a character"]),
    "role user": (
        turns({"from": "user", "value": "Hi"}, ANSWER),
        ["conversations[0].from", "'user'", "write 'human'"],
    ),
    "role assistant": (turns(TEXT_QUESTION, {"from": "assistant", "value": "x"}), ["write 'gpt'"]),
    "role in capitals": (turns({"from": "Human", "value": "Hi"}, ANSWER), ["'Human'", "write 'human'"]),
    "role system": (
        turns({"from": "system", "value": "x"}, TEXT_QUESTION, ANSWER),
        ["remove the turn", "--version"],
    ),
    "role unknown": (turns({"from": "narrator", "value": "x"}, ANSWER), ["'narrator'", "'human' or 'gpt'"]),
    "role null": (turns({"from": None, "value": "x"}, ANSWER), ["found None"]),
    "two human turns": (
        turns(TEXT_QUESTION, TEXT_QUESTION, ANSWER),
        ["conversations[1].from", "second 'human'"],
    ),
    "two gpt turns": (turns(TEXT_QUESTION, ANSWER, ANSWER), ["conversations[2].from", "second 'gpt'"]),
    "ends with human": (turns(TEXT_QUESTION, ANSWER, TEXT_QUESTION), ["ends with a human turn"]),
    "question only": (turns(TEXT_QUESTION), ["ends with a human turn", "add it or remove"]),
    "gpt only": (turns(ANSWER), ["no turn from human"]),
    "all answers empty": (turns(TEXT_QUESTION, {"from": "gpt", "value": " \n"}), ["every answer is empty"]),
    "<image> without image": (
        row(image=...),
        ["row 1 (id 'a7'), image", "the text has <image>", "is missing"],
    ),
    "<image> and images": (row(image=..., images=["mira.png"]), ["rename 'images' to 'image'"]),
    "image null": (row(image=None), ["the text has <image>"]),
    "image without <image>": (
        row(conversations=[TEXT_QUESTION, ANSWER]),
        ["no turn has <image>", "remove 'image'"],
    ),
    "two <image> turns, one file": (row(conversations=[QUESTION, ANSWER] * 2), ["<image> in 2 turns, but 1"]),
    "one <image> turn, two files": (row(image=["mira.png", "sub/otto.png"]), ["<image> in 1 turn, but 2"]),
    "<image> in an answer": (
        row(conversations=[QUESTION, {"from": "gpt", "value": "<image>"}]),
        ["conversations[1].value", "<image> in an answer"],
    ),
    "image empty": (row(image=""), ["image", "an empty name"]),
    "image list empty": (row(image=[]), ["image", "an empty list"]),
    "image number": (row(image=3), ["image", "found a number (3)"]),
    "image object": (row(image={"path": "x"}), ["image", "found an object"]),
    "image list of numbers": (row(image=[1]), ["image", "found a number"]),
    "image missing": (row(image="nobody_at_all.jpg"), ["'nobody_at_all.jpg' is not in"]),
    "image nearly there": (row(image="mira.pmg"), ["did you mean 'mira.png'"]),
    "image in other case": (row(image="sub/OTTO.PNG"), ["did you mean 'otto.png'"]),
    "image with a blank": (row(image="mira.png "), ["did you mean 'mira.png'"]),
    "image with a very long name": (row(image="a" * 300 + ".png"), ["cannot be read", "too long"]),
    "image with a backslash": (row(image="sub\\mira.png"), ["is not in", "did you mean"]),
    "image in a missing folder": (row(image="nowhere/mira.png"), ["'nowhere' does not exist"]),
    "image is a folder": (row(image="sub"), ["no regular file"]),
    "image is a pipe": (row(image="pipe.png"), ["no regular file"]),
    "image is a loop": (row(image="loop.png"), ["'loop.png'", "cannot be read"]),
    "image with NUL": (row(image="mira\0.png"), ["NUL"]),
    "image with half a character": (row(image="mira\ud83d.png"), ["half of a character"]),
    "image absolute": (row(image="/etc/hostname"), ["absolute path"]),
    "image absolute on Windows": (row(image="C:\\mira.png"), ["absolute path"]),
    "image above": (row(image="../outside.png"), ["leads out of"]),
    "image above, missing": (row(image="../none.png"), ["leads out of"]),
    "image the folder above": (row(image="sub/../.."), ["leads out of"]),
    "image behind a link": (row(image="leaving.png"), ["leads out of", "not a link"]),
    "image in a linked folder": (row(image="leaving_folder/outside.png"), ["leads out of"]),
    "image http": (row(image="http://127.0.0.1/a.png"), ["URL", "nothing is downloaded"]),
    "image file URL": (row(image="file:///etc/hostname"), ["URL"]),
    "image data URL": (row(image="data:image/png;base64,AAAA"), ["URL"]),
}


@pytest.mark.parametrize(("content", "parts"), FILES.values(), ids=FILES)
def test_a_malformed_file_is_told(folder: Path, content: str | bytes, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, content)
    for part in ["train.json", *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize(("value", "parts"), ROWS.values(), ids=ROWS)
def test_a_malformed_row_is_told(folder: Path, value: object, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, [row(), value])
    message = str(caught.value)
    for part in ["train.json: 1 problem (", "row 1", *parts]:
        assert part in message
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize(
    ("name", "parts"),
    [("train.jsno", ["does not exist", "did you mean", "train.json?"]), ("images", ["is a folder"])],
)
def test_a_path_that_is_no_file_is_told(folder: Path, name: str, parts: list[str]) -> None:
    read(folder, [row()])
    with pytest.raises(DataError) as caught:
        read_samples(folder / name, folder / "images")
    for part in [name, *parts]:
        assert part in str(caught.value)


@pytest.mark.parametrize("name", ["n" * 300, "a\0b"])
def test_a_path_that_cannot_be_is_told(folder: Path, name: str) -> None:
    read(folder, [row()])
    with pytest.raises(DataError, match="cannot be read"):
        read_samples(folder / name, folder / "images")
    with pytest.raises(UsageError, match=r"--image_folder .* cannot be read"):
        read_samples(folder / "train.json", folder / name)


def test_a_missing_image_folder_is_told(folder: Path) -> None:
    read(folder, [row()])
    with pytest.raises(UsageError, match=r"did you mean .*images"):
        read_samples(folder / "train.json", folder / "image")
    with pytest.raises(UsageError, match=r"train\.json is a file"):
        read_samples(folder / "train.json", folder / "train.json")
    with pytest.raises(DataError, match="no folder of pictures"):
        read_samples(folder / "train.json", None)


def test_all_problems_are_told_at_once(folder: Path) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, [row(image=f"absent_{number}.png") for number in range(SHOWN_PROBLEMS + 3)])
    lines = str(caught.value).splitlines()
    assert "23 problems" in lines[0]
    assert len(lines) == SHOWN_PROBLEMS + 2
    assert lines[-1] == "  and 3 more"


def test_good_rows_are_read(folder: Path) -> None:
    samples = read(folder, [row(), turns(TEXT_QUESTION, ANSWER), row(id=5, image="./sub/otto.png")])
    images = folder.resolve() / "images"
    turn_pair = (("human", "<image>\nWho is this?"), ("gpt", "Mira"))
    assert samples[0] == Sample("a7", 0, (str(images / "mira.png"),), turn_pair)
    assert samples[1].images == ()
    assert samples[2] == Sample("5", 2, (str(images / "sub/otto.png"),), turn_pair)


def test_an_id_may_be_missing_or_repeated(folder: Path) -> None:
    samples = read(folder, [row(), row(), row(id=...), row(id=None)])
    assert [sample.sample_id for sample in samples] == ["a7", "a7", "2", "3"]


def test_links_inside_the_folder_and_lists_of_pictures_are_read(folder: Path) -> None:
    both = row(image=["staying.png", "sub/../sub/otto.png"], conversations=[QUESTION, ANSWER] * 2)
    samples = read(folder, [row(image="staying.png"), both])
    images = folder.resolve() / "images"
    assert samples[0].images == (str(images / "mira.png"),)
    assert samples[1].images == (str(images / "mira.png"), str(images / "sub/otto.png"))


def test_several_marks_in_one_turn_are_one_picture(folder: Path) -> None:
    twice = {"from": "human", "value": "<image> <image> Who?"}
    assert len(read(folder, [row(conversations=[twice, ANSWER])])[0].images) == 1


def test_a_first_turn_from_gpt_is_dropped(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    sample = read(folder, [turns(ANSWER, TEXT_QUESTION, ANSWER)])[0]
    assert [role for role, _ in sample.turns] == ["human", "gpt"]
    assert "1 x first turn from gpt (first: row 0)" in caplog.text


def test_some_empty_turns_are_allowed(folder: Path) -> None:
    empty = {"from": "gpt", "value": ""}
    assert len(read(folder, [turns(TEXT_QUESTION, empty, TEXT_QUESTION, ANSWER)])[0].turns) == 4


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\n\n"])
def test_json_lines_byte_order_marks_and_line_ends(folder: Path, line_end: str) -> None:
    text = line_end.join([GOOD, GOOD]) + line_end
    assert len(read(folder, "\ufeff" + text)) == 2
    assert len(read(folder, "\ufeff" + json.dumps([row(), row()], indent=1).replace("\n", line_end))) == 2


@pytest.mark.parametrize("content", [b"", b"<html></html>", b"%!PS-Adobe-3.0 EPSF-3.0\n"])
@pytest.mark.parametrize("mode", ["auto", "full", "header"])
def test_an_unreadable_picture_is_told_with_its_row(folder: Path, content: bytes, mode: str) -> None:
    (folder / "images" / "bad.png").write_bytes(content)
    samples = read(folder, [row(), row(id="b8", image="bad.png"), row(image="bad.png")])
    with pytest.raises(DataError) as caught:
        check_pictures(samples, mode)
    assert "1 problem" in str(caught.value)
    for part in ["row 1 (id 'b8'), image", "bad.png"]:
        assert part in str(caught.value)
    check_pictures(samples, "none")
    check_pictures(samples[:1], mode)


def test_a_cut_picture_is_found_by_decoding(folder: Path) -> None:
    Image.effect_noise((64, 64), 50).convert("RGB").save(folder / "images" / "cut.jpg")
    content = (folder / "images" / "cut.jpg").read_bytes()
    (folder / "images" / "cut.jpg").write_bytes(content[: len(content) // 2])
    samples = read(folder, [row(image="cut.jpg")])
    check_pictures(samples, "header")
    with pytest.raises(DataError, match=r"cut\.jpg"):
        check_pictures(samples, "full")
