"""Q-Bench's questions as they are asked, and its command line."""

import json
from pathlib import Path

import pytest
from PIL import Image

from llava.errors import UsageError
from llava.eval import model_vqa_qbench
from llava.eval.qbench_questions import read_qbench_questions
from llava.records import DataError

ROW = {"img_path": "a.png", "question": "Is it sharp?", "candidates": ["Yes", "No"], "correct_ans": "No"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A question file and a picture."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "a.png")
    (tmp_path / "questions.json").write_text(
        json.dumps([ROW, ROW | {"question": "Is it?"}]), encoding="utf-8"
    )
    return tmp_path


def test_questions_are_the_benchmarks(folder: Path) -> None:
    first, second = read_qbench_questions(folder / "questions.json", folder / "images", lang="en")
    assert first.text == "Is it sharp?\nChoose between one of the options as follows:\nA. Yes\nB. No\n"
    assert (first.question_id, second.question_id) == ("a.png", "a.png#2")
    assert first.image_path == second.image_path == str(folder.resolve() / "images" / "a.png")
    (chinese, _) = read_qbench_questions(
        folder / "questions.json", folder / "images", lang="zh", ask_for_letter=True
    )
    assert chinese.text == "Is it sharp?\n在下列选项中选择一个:\nA. Yes\nB. No\n请直接回答选项字母。"


def test_missing_pictures_are_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [ROW, ROW | {"img_path": "b.png"}]
    (folder / "questions.json").write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match=r"row 1, image: 'b.png' is not in .*did you mean 'a.png'"):
        read_qbench_questions(folder / "questions.json", folder / "images", lang="en")
    asked = read_qbench_questions(folder / "questions.json", folder / "images", lang="en", lost_allowed=True)
    assert [question.question_id for question in asked] == ["a.png", "b.png"]
    assert "'b.png' is not in" in caplog.text


def test_the_question_file_has_two_names() -> None:
    parse = model_vqa_qbench.parser().parse
    for flag in ("--question-file", "--questions-file"):
        assert parse(["--model-path", "m", flag, "q.json"]).question_file == "q.json"
    assert parse(["--model-path", "m"]).question_file.endswith("qbench/llvisionqa_dev.json")
    with pytest.raises(UsageError, match="--lang"):
        parse(["--model-path", "m", "--lang", "fr"])
