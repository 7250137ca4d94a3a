"""The question file: a malformed row gives one message with file, line, field and remedy."""

import json
from pathlib import Path

import pytest
from PIL import Image

from llava.errors import UsageError
from llava.eval.questions import Question, place_of_missing, read_questions
from llava.records import DataError, PictureFolder

GOOD = {"question_id": 1, "image": "mira.png", "text": "Who is this?", "category": "name"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one picture."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "mira.png")
    return tmp_path


def read(folder: Path, *rows: object) -> list[Question]:
    """Questions of a file with these rows; bytes are written as they are."""
    lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in rows]
    (folder / "questions.jsonl").write_bytes(b"\n".join(lines))
    return read_questions(folder / "questions.jsonl", folder / "images")


def row(**changes: object) -> dict[str, object]:
    """A good second row with changes; a value of `...` removes the field."""
    return {key: value for key, value in (GOOD | {"question_id": 2} | changes).items() if value is not ...}


CASES = {
    "no JSON": (b"{question}", ["line 2, column 2"]),
    "cut off": (b'{"question_id": 2, "te', ["line 2", "ends in the middle"]),
    "not an object": (["Who?"], ["line 2", "found an array"]),
    "key twice": (b'{"question_id": 2, "question_id": 3}', ["line 2", "stands twice"]),
    "no id": (row(question_id=...), ["line 2, question_id", "is missing"]),
    "id under another name": (row(question_id=..., id=4), ["rename 'id' to 'question_id'"]),
    "id null": (row(question_id=None), ["question_id", "found null"]),
    "id empty": (row(question_id=" "), ["question_id", "an empty text"]),
    "id list": (row(question_id=[2]), ["question_id", "found an array"]),
    "id true": (row(question_id=True), ["question_id", "true or false"]),
    "id fraction": (row(question_id=1.5), ["question_id", "found a number"]),
    "id again": (row(question_id=1), ["line 2 (question_id 1)", "again", "line 1 has it too"]),
    "id again as text": (row(question_id="1"), ["'1' again", "line 1"]),
    "no text": (row(text=...), ["line 2 (question_id 2), text", "is missing"]),
    "text under another name": (row(text=..., question="Who?"), ["rename 'question' to 'text'"]),
    "text null": (row(text=None), ["text", "found null"]),
    "text number": (row(text=5), ["text", "found a number (5)"]),
    "text empty": (row(text=" "), ["text", "empty"]),
    "text with <image>": (row(text="<image>\nWho?"), ["text", "<image>", "remove it"]),
    "text with half a character": (row(text="a\ud83d"), ["half of a character"]),
    "category number": (row(category=3), ["category", "found a number"]),
    "image list": (row(image=["mira.png"]), ["image", "found an array"]),
    "image empty": (row(image=""), ["image", "an empty name"]),
    "image missing": (row(image="mira.jpg"), ["image", "did you mean 'mira.png'"]),
    "image above": (row(image="../questions.jsonl"), ["leads out of"]),
    "image URL": (row(image="https://127.0.0.1/a.png"), ["URL"]),
}


@pytest.mark.parametrize(("value", "parts"), CASES.values(), ids=CASES)
def test_a_malformed_row_is_told(folder: Path, value: object, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, GOOD, value)
    message = str(caught.value)
    for part in ["questions.jsonl: 1 problem", "line 2", *parts]:
        assert part in message
    assert len(message.splitlines()) == 2


def test_an_empty_or_missing_file_is_told(folder: Path) -> None:
    with pytest.raises(DataError, match="is empty"):
        read(folder)
    with pytest.raises(DataError, match=r"does not exist; did you mean .*questions\.jsonl"):
        read_questions(folder / "question.jsonl", folder / "images")
    with pytest.raises(UsageError, match="does not exist"):
        read_questions(folder / "questions.jsonl", folder / "pictures")


def test_ids_and_order_are_kept(folder: Path) -> None:
    questions = read(folder, row(question_id="b"), b"", row(question_id=7, image=..., category=...), b"  ")
    path = str(folder.resolve() / "images" / "mira.png")
    assert questions == [
        Question("b", "Who is this?", "mira.png", path, "name"),
        Question(7, "Who is this?", None, None, None),
    ]


def test_text_questions_need_no_image_folder(folder: Path) -> None:
    read(folder, row(image=...))
    for image_folder in ("", None):
        assert len(read_questions(folder / "questions.jsonl", image_folder)) == 1


def test_one_id_may_stand_at_different_questions(folder: Path) -> None:
    """MME asks two questions about each picture under one id."""
    questions = read(folder, GOOD, GOOD | {"text": "Is it a boat?"}, GOOD | {"image": None})
    assert [question.question_id for question in questions] == [1, 1, 1]


def test_some_pictures_may_be_missing(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When it is allowed: at most half of them, nothing else is wrong, and the log tells which."""
    lost = {"question_id": 2, "image": "lost.png", "text": "Who?"}
    (folder / "questions.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps(lost))

    def read_leniently() -> list[Question]:
        return read_questions(folder / "questions.jsonl", folder / "images", lost_allowed=True)

    questions = read_leniently()
    assert [question.question_id for question in questions] == [1, 2]
    assert questions[1].image_path == str(folder.resolve() / "images" / "lost.png")
    assert "line 2 (question_id 2), image: 'lost.png' is not in" in caplog.text
    for wrong in (
        {**lost, "question_id": 3},
        {"question_id": 3, "text": ""},
        {**GOOD, "question_id": 3, "image": "../questions.jsonl"},
    ):
        with (folder / "questions.jsonl").open("a") as file:
            file.write("\n" + json.dumps(wrong))
        with pytest.raises(DataError, match=r"2 problems(?s:.*)lost\.png"):
            read_leniently()
        (folder / "questions.jsonl").write_text(json.dumps(GOOD) + "\n" + json.dumps(lost))


def test_the_place_of_a_missing_picture_is_within_the_folder(folder: Path) -> None:
    (folder / "images" / "away").symlink_to(folder)
    pictures = PictureFolder(folder / "images")
    assert place_of_missing("new/a.png", pictures) == str(folder.resolve() / "images" / "new" / "a.png")
    for name in ("mira.png", "../a.png", "away/a.png", "/a.png", "http://h/a.png", "", "a\0.png"):
        assert place_of_missing(name, pictures) is None
