"""Q-Bench: accuracy of a dev split, the file for the server of a test split."""

import json
from pathlib import Path

import pytest

from llava.eval import eval_qbench
from tests.unit.eval.metrics.conftest import Failing, orders, write_lines

ROWS = [
    {"img_path": "a.png", "type": 0, "concern": 1, "question": "Is it sharp?", "option_num": 2,
     "candidates": ["Yes", "No"], "correct_ans": "No"},
    {"img_path": "b.png", "type": 2, "concern": 0, "question": "How bright?", "option_num": 3,
     "candidates": ["Low", "Medium", "High"], "correct_ans": "High"},
    {"img_path": "a.png", "type": 1, "concern": 0, "question": "What spoils it?", "option_num": 2,
     "candidates": ["Blur", "Noise"], "correct_ans": "Blur"},
]  # fmt: skip
ANSWERS = [
    {"question_id": "a.png", "text": "B. No"},
    {"question_id": "b.png", "text": "The brightness is high."},
    {"question_id": "a.png#2", "text": "B"},
]


def files(tmp_path: Path, rows: list[dict], answers: list[dict]) -> list[str]:
    """The flags that name both files."""
    questions = tmp_path / "llvisionqa_dev.json"
    questions.write_text(json.dumps(rows), encoding="utf-8")
    result = write_lines(answers, tmp_path / "answers.jsonl")
    return ["--question-file", str(questions), "--result-file", str(result)]


def test_no_order_of_answers_matters(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = set()
    for answers in orders(ANSWERS):
        eval_qbench.main([*files(tmp_path, ROWS, answers), "--results-dir", str(tmp_path / "out")])
        printed.add(capsys.readouterr().out)
    (text,) = printed
    for line in (
        "accuracy: 66.67% (n=3)", "type: how: 100.00% (n=1)", "type: what: 0.00% (n=1)",
        "type: yes-or-no: 100.00% (n=1)", "concern: distortion: 50.00% (n=2)",
        "concern: other: 100.00% (n=1)",
    ):  # fmt: skip
        assert line + "\n" in text
    assert "bootstrap over pictures), 0.0 % unparsable, 0 missing\n" in text, "two questions share a picture"
    results = json.loads((tmp_path / "out" / "results.json").read_text(encoding="utf-8"))
    assert (results["benchmark"], results["split"]) == ("qbench", "llvisionqa_dev")


def test_a_test_split_is_written_for_the_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], refusal: Failing
) -> None:
    rows = [{key: value for key, value in row.items() if key != "correct_ans"} for row in ROWS]
    flags, target = files(tmp_path, rows, ANSWERS[:2]), tmp_path / "out" / "submission.jsonl"
    assert "write the file for it with --submission-file" in refusal(eval_qbench.main, *flags)
    eval_qbench.main([*flags, "--submission-file", str(target)])
    captured = capsys.readouterr()
    assert "Evidence" not in captured.out
    assert "only" in captured.err
    written = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    wanted = ["B. No", "The brightness is high.", ""]
    assert written == [row | {"response": text} for row, text in zip(rows, wanted, strict=True)]


BROKEN = {
    "no object": (5, "row 1: found a number"),
    "no picture": (
        {"image": "a.png", "question": "?", "candidates": ["x", "y"]},
        "rename 'image' to 'img_path'",
    ),
    "no options": (ROWS[0] | {"candidates": "Yes"}, "candidates: found a text; an array of 2 to 26"),
    "one option": (ROWS[0] | {"candidates": ["Yes"]}, "found 1 options"),
    "odd option": (ROWS[0] | {"candidates": ["Yes", 3]}, "candidates[1]: found a number"),
    "odd answer": (ROWS[0] | {"correct_ans": "Perhaps"}, "correct_ans: found 'Perhaps'; one of 'Yes', 'No'"),
    "<image>": (ROWS[0] | {"question": "<image> Sharp?"}, "question: found <image>"),
}


@pytest.mark.parametrize(("row", "part"), BROKEN.values(), ids=BROKEN)
def test_broken_rows_are_told(row: object, part: str, tmp_path: Path, refusal: Failing) -> None:
    flags = files(tmp_path, [ROWS[0], row], ANSWERS)  # type: ignore[list-item]
    assert part in refusal(eval_qbench.main, *flags)


def test_answers_that_do_not_belong_are_refused(tmp_path: Path, refusal: Failing) -> None:
    flags = files(tmp_path, ROWS, [*ANSWERS, {"question_id": "c.png", "text": "A"}])
    assert "1 answer belongs to no question, first c.png" in refusal(eval_qbench.main, *flags)
    flags = files(tmp_path, ROWS, [*ANSWERS, ANSWERS[0]])
    assert "answered more than once, first a.png" in refusal(eval_qbench.main, *flags)
    flags = files(tmp_path, [ROWS[0], ROWS[1] | {"correct_ans": None}], ANSWERS[:2])
    assert "1 rows have no correct_ans, first b.png" in refusal(eval_qbench.main, *flags)
