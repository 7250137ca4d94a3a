"""ScienceQA's question file: what is asked and shown, and one message per malformed row."""

import json
from pathlib import Path

import pytest
from PIL import Image

from llava.eval.questions import LETTER_INSTRUCTION, Question
from llava.eval.science_questions import read_science_questions
from llava.records import DataError

GOOD = {"id": "1", "image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWhich?"}]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one picture."""
    (tmp_path / "images").mkdir()
    Image.new("L", (4, 4)).save(tmp_path / "images" / "a.png")
    return tmp_path


def read(folder: Path, *rows: object, ask_for_letter: bool = False) -> list[Question]:
    """Questions of a file with these rows."""
    (folder / "questions.json").write_text(json.dumps(rows), encoding="utf-8")
    return read_science_questions(folder / "questions.json", folder / "images", ask_for_letter=ask_for_letter)


def row(text: str, **changes: object) -> dict[str, object]:
    """A row without a picture that asks this."""
    turns = [{"from": "human", "value": text}, {"from": "gpt", "value": "The answer is A."}]
    return {"id": "2", "conversations": turns, **changes}


@pytest.mark.parametrize("ask_for_letter", [False, True])
def test_the_picture_is_shown_in_the_prompt_and_not_asked(folder: Path, ask_for_letter: bool) -> None:
    end = f"\n{LETTER_INSTRUCTION}" if ask_for_letter else ""
    rows = [GOOD, row("Which?\n<image>", image="a.png"), row(" Two?\nOptions: (A) 1 (B) 2 ", id=3)]
    with_picture, behind, text_only = read(folder, *rows, ask_for_letter=ask_for_letter)
    for question in (with_picture, behind):
        assert question.text == f"Which?{end}"
        assert question.shown_prompt == f"<image>\nWhich?{end}"
        assert question.image_path == str(folder.resolve() / "images" / "a.png")
    assert text_only.text == text_only.shown_prompt == f"Two?\nOptions: (A) 1 (B) 2{end}"
    assert text_only.image_path is None
    assert [question.question_id for question in (with_picture, behind, text_only)] == ["1", "2", 3]


CASES = {
    "not an object": (["Which?"], ["row 1", "found an array"]),
    "no id": ({"question_id": 4, "conversations": []}, ["rename 'question_id' to 'id'"]),
    "id null": (row("Which?", id=None), ["id: found null"]),
    "no turns": ({"id": "2", "text": "Which?"}, ["conversations: is missing"]),
    "empty turns": (row("Which?", conversations=[]), ["found an empty array"]),
    "turns are text": (row("Which?", conversations="Which?"), ["found a text"]),
    "turn is text": (row("Which?", conversations=["Which?"]), ["conversations[0]: found a text"]),
    "turn without value": (row("", conversations=[{"from": "human", "text": "W"}]), ["rename 'text'"]),
    "model first": (row("", conversations=[{"from": "gpt", "value": "A"}]), ["found 'gpt'", "'human'"]),
    "only a picture": (row("<image>"), ["value: found an empty text"]),
    "number asked": (row(5), ["found a number (5)"]),  # type: ignore[arg-type]
    "picture missing": (row("Which?", image="b.png"), ["'b.png' is not in", "did you mean 'a.png'"]),
    "picture as list": (row("Which?", image=["a.png"]), ["image: found an array"]),
    "asked twice": (row("Which?", id="1", image="a.png"), ["row 0 has it too"]),
}


@pytest.mark.parametrize(("value", "parts"), CASES.values(), ids=CASES)
def test_a_malformed_row_is_told(folder: Path, value: object, parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(folder, GOOD, value)
    for part in ["questions.json: ", "row 1", *parts]:
        assert part in str(caught.value)


def test_all_rows_are_told_at_once(folder: Path) -> None:
    with pytest.raises(DataError, match="3 problems"):
        read(folder, row("", id="1"), GOOD, row("Which?", id="x", image="no.png"), row("Which?", id=[]))
