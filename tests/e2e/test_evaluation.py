"""Answers through the real command: batches change nothing, a torn file is taken up, chunks make the
whole.
"""

import json
from pathlib import Path

from tests.e2e.conftest import BASE, run_module


def answer(lesson: Path, answers: Path, *flags: str) -> list[dict]:
    """Answer the lesson's questions with the base model."""
    result = run_module(
        "llava.eval.model_vqa_loader",
        "--model-path", str(BASE),
        "--question-file", str(lesson / "questions.jsonl"),
        "--image-folder", str(lesson / "images"),
        "--answers-file", str(answers),
        "--temperature", "0",
        *flags,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]


def without_ids(rows: list[dict]) -> list[dict]:
    """Answers without their random ids."""
    return [{key: value for key, value in row.items() if key != "answer_id"} for row in rows]


def test_batches_resume_and_chunks(lesson: Path, tmp_path: Path) -> None:
    single = answer(lesson, tmp_path / "single.jsonl", "--batch-size", "1")
    questions = [
        json.loads(line) for line in (lesson / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["question_id"] for row in single] == [row["question_id"] for row in questions]
    assert {row["text"] for row in single} & {"yes", "no", "one", "two", "three"}, (
        "the base must answer in its words"
    )
    assert set(single[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}

    batched = tmp_path / "batched.jsonl"
    assert without_ids(answer(lesson, batched, "--batch-size", "13")) == without_ids(single)
    lines = batched.read_bytes().splitlines(keepends=True)
    batched.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    again = answer(lesson, batched, "--batch-size", "13")
    assert without_ids(again) == without_ids(single)
    assert batched.read_bytes().splitlines(keepends=True)[:5] == lines[:5], "finished lines stay as they are"

    parts = []
    for chunk in range(3):
        file = tmp_path / f"3_{chunk}.jsonl"
        parts += answer(lesson, file, "--batch-size", "8", "--num-chunks", "3", "--chunk-idx", str(chunk))
    assert without_ids(parts) == without_ids(single)


def test_answers_of_another_run_are_not_mixed(lesson: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    answer(lesson, file, "--max_new_tokens", "2")
    result = run_module(
        "llava.eval.model_vqa_loader", "--model-path", str(BASE),
        "--question-file", str(lesson / "questions.jsonl"),
        "--image-folder", str(lesson / "images"), "--answers-file", str(file), "--max_new_tokens", "3",
    )  # fmt: skip
    assert result.returncode == 2
    assert "another --answers-file" in result.stderr
    assert "Traceback" not in result.stderr
