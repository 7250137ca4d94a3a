"""SEED-Bench: exact letters per type, in any order of lines, and what is refused."""

import json
import runpy
from pathlib import Path

import pytest

from llava.eval.metrics.seed import SeedQuestion, report
from tests.unit.eval.metrics.conftest import Failing, before_evidence, orders, write_lines

ROOT = Path(__file__).resolve().parents[4]
MAIN = runpy.run_path(str(ROOT / "scripts" / "convert_seed_for_submission.py"))["main"]
TYPES = {"Scene": 1, "Counting": 5, "Action": 10}


def questions() -> list[dict]:
    """Five of each type; the action ones are videos and have ids that are no numbers."""
    return [
        {"question_id": f"v_{k}" if type_id == 10 else str(100 * type_id + k), "question_type_id": type_id,
         "data_type": "video" if type_id == 10 else "image", "answer": "ABCD"[k % 4]}
        for type_id in TYPES.values() for k in range(5)
    ]  # fmt: skip


def answers() -> list[dict]:
    """All right but for the counting ones; numbers are written as numbers."""
    return [
        {"question_id": int(name) if (name := row["question_id"]).isdecimal() else name,
         "text": "E" if row["question_type_id"] == 5 else row["answer"]}
        for row in questions()
    ]  # fmt: skip


def flags(folder: Path, rows: list[dict], content: object = None) -> list[str]:
    """The command line for these answers."""
    wanted = {"question_type": TYPES, "questions": questions()} if content is None else content
    (folder / "seed.json").write_text(json.dumps(wanted), encoding="utf-8")
    path = write_lines(rows, folder / "answers.jsonl")
    return [
        "--annotation-file", str(folder / "seed.json"), "--result-file", str(path),
        "--result-upload-file", str(folder / "upload" / "seed.jsonl"),
    ]  # fmt: skip


def test_no_order_of_lines_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = set()
    for rows in orders(answers()):
        MAIN(flags(tmp_path, rows))
        written.add((capsys.readouterr().out, (tmp_path / "upload/seed.jsonl").read_text(encoding="utf-8")))
    ((printed, upload),) = written
    assert before_evidence(printed) == (
        "Scene: 100.00%\nCounting: 0.00%\nAction: 100.00%\nTotal accuracy: 66.67%\n"
        "image accuracy: 50.00%\nvideo accuracy: 100.00%\n"
    )
    ids = [json.loads(line)["question_id"] for line in upload.splitlines()]
    assert ids == [row["question_id"] for row in questions()]


def test_missing_foreign_and_repeated_answers_are_refused(tmp_path: Path, refusal: Failing) -> None:
    rows = answers()
    assert "2 questions have no answer, first 100, 101" in refusal(MAIN, *flags(tmp_path, rows[2:]))
    foreign = [*rows, {"question_id": 7, "text": "A"}]
    assert "1 answer belongs to no question, first 7" in refusal(MAIN, *flags(tmp_path, foreign))
    assert "is answered more than once, first v_4" in refusal(MAIN, *flags(tmp_path, [*rows, rows[-1]]))
    assert not (tmp_path / "upload").exists()


def test_all_problems_of_the_annotations_are_told(tmp_path: Path, refusal: Failing) -> None:
    rows = questions()
    content = {
        "question_type": TYPES,
        "questions": [rows[0], rows[0], rows[1] | {"question_type_id": 3}, rows[2] | {"answer": 1}, {}, 3],
    }
    told = refusal(MAIN, *flags(tmp_path, answers(), content))
    for text in (
        "1 id stands twice, first 100",
        "question 2, question_type_id: found 3; one of 1, 5, 10 was wanted",
        "question 3, answer: found a number (1)",
        "question 4, data_type: is missing",
        "question 5: found a number",
    ):
        assert text in told
    told = refusal(MAIN, *flags(tmp_path, answers(), {"question_type": {"x": "1"}}))
    assert "question_type: found {'x': '1'}" in told
    assert "questions: found null" in told


def test_a_missing_answer_counts_as_wrong_in_the_report() -> None:
    asked = [SeedQuestion(1, 1, "image", "A"), SeedQuestion("2", 1, "image", "B")]
    assert report(asked, {"1": "A"}, {1: "Scene"}).startswith("Scene: 50.00%\nTotal accuracy: 50.00%\n")
