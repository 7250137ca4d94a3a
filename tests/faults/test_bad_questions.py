"""Malformed question files: one message with line, field and remedy, from check_questions.

It reads them by what the answering programs read them with.
"""

import json
from pathlib import Path

import pytest

from llava.eval import check_questions
from tests.faults.checking import UNKNOWN_KINDS, Check, as_lines, check, errors_of, notes_of
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.unit.eval.test_questions import CASES as QUESTIONS
from tests.unit.eval.test_questions import GOOD as GOOD_QUESTION
from tests.unit.train.test_samples import folder, row

__all__ = ["check", "folder"]


def question_flags(folder: Path) -> list[str]:
    """The flags of check_questions."""
    return ["--question-file", str(folder / "q.jsonl"), "--image-folder", str(folder / "images")]


@pytest.mark.parametrize(("value", "parts"), QUESTIONS.values(), ids=QUESTIONS)
def test_a_malformed_question(
    folder: Path, value: object, parts: list[str], check: Check, fault_log: FaultLog
) -> None:
    line = value if isinstance(value, bytes) else as_lines(value)
    (folder / "q.jsonl").write_bytes(as_lines(GOOD_QUESTION) + b"\n" + line)
    code, report, shown = check(check_questions, *question_flags(folder))
    assert code == 2
    (error,) = errors_of(report)
    assert error["place"].startswith("line 2")
    if isinstance(value, dict):
        assert error["kind"] not in UNKNOWN_KINDS
        assert error["id"] == value.get("question_id") or not isinstance(value.get("question_id"), str | int)
    flat = shown.replace("(id ", "(question_id ")
    for part in parts:
        assert part in flat
    fault_log("malformed question", "told by check_questions", REFUSED)


def test_ids_of_questions_and_annotations(folder: Path, check: Check, fault_log: FaultLog) -> None:
    questions = [GOOD_QUESTION | {"question_id": number, "text": f"Who {number}?"} for number in (1, 2, 3, 3)]
    questions[3] |= {"text": "Who else?"}
    (folder / "q.jsonl").write_bytes(as_lines(*questions))
    (folder / "truth.jsonl").write_bytes(
        as_lines({"question_id": 1}, {"question_id": "2"}, {"question_id": 9})
    )
    truth = ["--annotation-file", str(folder / "truth.jsonl")]
    code, report, shown = check(check_questions, *question_flags(folder), *truth)
    assert code == 0
    counts = {kind["kind"]: kind["count"] for kind in report["kinds"]}
    assert counts == {
        "id repeated": 1,
        "id of another type": 1,
        "id without an annotation": 2,
        "annotations without a question": 1,
    }
    assert "line 2 (id 2), question_id: found a number, the annotation has a text ('2')" in shown
    fault_log("ids of questions and annotations differ", "noted with both types", SURVIVED, 5)


def test_pictures_of_questions_are_seen_whatever_else_is_wrong(folder: Path, check: Check) -> None:
    (folder / "images" / "torn.png").write_bytes(b"<html>")
    (folder / "q.jsonl").write_bytes(as_lines(GOOD_QUESTION, {"question_id": 2, "image": "torn.png"}))
    code, report, _ = check(check_questions, *question_flags(folder))
    assert code == 2
    found = {(error["kind"], error["row"], error["field"]) for error in errors_of(report)}
    assert found == {("text of a question", 1, "text"), ("picture of another kind", 1, "image")}


@pytest.mark.parametrize("name", ["truth.json", "by_id.json"])
def test_annotations_in_other_shapes(folder: Path, name: str, check: Check) -> None:
    """A list under a key, and an object with ids as keys."""
    (folder / "q.jsonl").write_bytes(as_lines(GOOD_QUESTION))
    shapes = {"truth.json": {"data": [{"question_id": "1"}]}, "by_id.json": {"1": {"answer": 0}}}
    (folder / name).write_text(json.dumps(shapes[name]), encoding="utf-8")
    code, report, _ = check(check_questions, *question_flags(folder), "--annotation-file", str(folder / name))
    assert code == 0
    assert notes_of(report) == {"id of another type"}


def test_science_questions_are_checked_by_their_own_reader(folder: Path, check: Check) -> None:
    (folder / "q.jsonl").write_text(json.dumps([row(), {"id": "b"}]), encoding="utf-8")
    code, report, _ = check(check_questions, *question_flags(folder), "--format", "science")
    assert code == 2
    (error,) = errors_of(report)
    assert (error["row"], error["id"], error["field"]) == (1, "b", "conversations")
