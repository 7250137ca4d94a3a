"""VQAv2's and VizWiz' own questions as question files that the answering programs read."""

import json
import runpy
from pathlib import Path

import pytest

from llava.eval.questions import read_questions

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "convert_vqa_to_llava.py"
VQAV2 = {"data_subtype": "val2014", "questions": [
    {"image_id": 458752, "question": "What is this?", "question_id": 458752000}]}  # fmt: skip
VIZWIZ = [
    {"image": "VizWiz_val_00000000.jpg", "question": "Is it red?", "answers": [], "answerable": 1},
    {"image": "VizWiz_val_00000001.jpg", "question": "What is it?"},
]


def convert(content: object, folder: Path) -> list[dict]:
    """The rows that the script writes."""
    source, target = folder / "questions.json", folder / "out" / "questions.jsonl"
    source.write_text(json.dumps(content), encoding="utf-8")
    runpy.run_path(str(SCRIPT))["main"](["--questions", str(source), "--dst", str(target)])
    assert read_questions(target, make_pictures(target, folder))
    return [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]


def make_pictures(questions: Path, folder: Path) -> Path:
    """Files under the names that the questions give."""
    for line in questions.read_text(encoding="utf-8").splitlines():
        (folder / json.loads(line)["image"]).write_bytes(b"x")
    return folder


def test_vqav2(tmp_path: Path) -> None:
    text = "What is this?\nAnswer the question using a single word or phrase."
    assert convert(VQAV2, tmp_path) == [
        {"question_id": 458752000, "image": "COCO_val2014_000000458752.jpg", "text": text,
         "category": "default"}
    ]  # fmt: skip


def test_vizwiz(tmp_path: Path) -> None:
    rows = convert(VIZWIZ, tmp_path)
    assert [(row["question_id"], row["image"]) for row in rows] == [
        (0, "VizWiz_val_00000000.jpg"), (1, "VizWiz_val_00000001.jpg"),
    ]  # fmt: skip
    assert rows[0]["text"].split("\n") == [
        "Is it red?",
        "When the provided information is insufficient, respond with 'Unanswerable'.",
        "Answer the question using a single word or phrase.",
    ]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"questions": [{"image_id": "a", "question": 3}]}, "3 problems"),
        ([{"image": "a.jpg"}, 7], "row 1: found a number; an object was wanted"),
        ([], "holds no rows"),
    ],
)
def test_what_cannot_be_read_is_told(
    content: object, told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        convert(content, tmp_path)
    assert ended.value.code == 2
    assert told in capsys.readouterr().err
