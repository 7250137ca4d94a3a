"""TextVQA: questions found in prompts of several shapes; answers in any order, missing, foreign, repeated."""

import json
from pathlib import Path

import pytest

from llava.eval import eval_textvqa
from llava.eval.metrics.textvqa import find_question
from tests.unit.eval.metrics.conftest import Failing, before_evidence, orders, write_lines

HOW = "Answer the question using a single word or phrase."
QUESTIONS = [("a", "What is it?"), ("a", "WHO made it?"), ("b", "What is it?"), ("c", "how many?")]
RIGHT = ["cola", "nobody", "a bus", "3"]


@pytest.fixture
def annotations(tmp_path: Path) -> Path:
    """Four questions about three pictures, each answered alike by ten people, but for one."""
    rows = [
        {"image_id": image, "question": question, "answers": [right] * 9 + ["other"]}
        for (image, question), right in zip(QUESTIONS, RIGHT, strict=True)
    ]
    path = tmp_path / "annotations.json"
    path.write_text(json.dumps({"data": rows}), encoding="utf-8")
    return path


def answers() -> list[dict]:
    """Three right, the last wrong."""
    said = [*RIGHT[:3], "4"]
    return [
        {"question_id": image, "prompt": f"{question}\n{HOW}", "text": text}
        for (image, question), text in zip(QUESTIONS, said, strict=True)
    ]


def flags(annotations: Path, rows: list[dict]) -> list[str]:
    """The command line for these answers."""
    path = write_lines(rows, annotations.parent / "answers" / "mine.jsonl")
    return ["--annotation-file", str(annotations), "--result-file", str(path)]


def test_no_order_of_lines_matters(annotations: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = set()
    for rows in orders(answers()):
        eval_textvqa.main(flags(annotations, rows))
        printed.add(capsys.readouterr().out)
    assert set(map(before_evidence, printed)) == {"mine\nSamples: 4\nAccuracy: 75.00%\n\n"}


def test_missing_answers_are_told(annotations: Path, caplog: pytest.LogCaptureFixture) -> None:
    eval_textvqa.main(flags(annotations, answers()[2:]))
    assert "of 4, 2 questions have no answer, first a 'what is it?', a 'who made it?'" in caplog.text


def test_all_problems_of_the_answers_are_told(annotations: Path, refusal: Failing) -> None:
    rows = answers()
    rows.append(rows[1])
    rows.append({"question_id": "z", "prompt": "?", "text": "x"})
    rows.append({"question_id": "a", "prompt": "Describe it.", "text": "x"})
    told = refusal(eval_textvqa.main, *flags(annotations, rows))
    assert "3 problems" in told
    assert "line 5: answers 'who made it?' again" in told
    assert "no question is about 'z'" in told
    assert "found 'Describe it.'; a prompt with 'what is it?', 'who made it?' was wanted" in told
    rows = [{"question_id": "a", "text": "x"}, {"question_id": "b", "prompt": "?", "text": 3}]
    told = refusal(eval_textvqa.main, *flags(annotations, rows))
    assert "line 1, prompt: is missing" in told
    assert "line 2, text: found a number (3)" in told


def test_all_problems_of_the_annotations_are_told(annotations: Path, refusal: Failing) -> None:
    rows = [
        {"image_id": "a", "question": "Q?", "answers": ["x"]},
        {"image_id": "a", "question": "R?", "answers": "x"},
        {"image_id": "b", "question": "S?", "answers": ["x"] * 10},
        {"image_id": "c"},
        7,
    ]
    annotations.write_text(json.dumps({"data": rows}), encoding="utf-8")
    told = refusal(eval_textvqa.main, *flags(annotations, answers()))
    for text in (
        "data row 0, answers: found 1 answers; at least 2",
        "data row 1, answers: found 'x'; a list of texts",
        "data row 3, question: is missing",
        "data row 4: found a number",
    ):
        assert text in told
    annotations.write_text("[]", encoding="utf-8")
    assert "the top level is an array" in refusal(eval_textvqa.main, *flags(annotations, answers()))
    annotations.write_text("{}", encoding="utf-8")
    assert "data: found null" in refusal(eval_textvqa.main, *flags(annotations, answers()))


def test_a_question_that_is_asked_twice_is_answered_twice(
    annotations: Path, capsys: pytest.CaptureFixture[str], refusal: Failing
) -> None:
    """As in the original, where the last one's people count."""
    content = json.loads(annotations.read_text(encoding="utf-8"))
    content["data"].append({"image_id": "c", "question": "How many?", "answers": ["4"] * 10})
    annotations.write_text(json.dumps(content), encoding="utf-8")
    rows = [*answers(), answers()[-1]]
    eval_textvqa.main(flags(annotations, rows))
    assert before_evidence(capsys.readouterr().out) == "mine\nSamples: 5\nAccuracy: 100.00%\n\n"
    assert "line 6: answers 'how many?' again" in refusal(
        eval_textvqa.main, *flags(annotations, [*rows, rows[-1]])
    )


def test_folders_hold_answer_files(annotations: Path, refusal: Failing) -> None:
    assert "--result-file or --result-dir" in refusal(eval_textvqa.main, "--annotation-file", annotations)
    empty = annotations.parent / "empty"
    empty.mkdir()
    command = ["--annotation-file", annotations, "--result-dir"]
    assert "holds no .jsonl file" in refusal(eval_textvqa.main, *command, empty)
    assert "is no folder" in refusal(eval_textvqa.main, *command, empty / "none")


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        (f"What is it?\n{HOW}", "what is it?"),
        (f"What is it?\nReference OCR token: x\n{HOW}", "what is it?"),
        (f"Reference OCR token: what is it?\nWHO made it?\n{HOW}", "who made it?"),
        ("OCR tokens: a. Question: Who\nmade it? Short answer:", "who\nmade it?"),
        ("OCR tokens: a, no question", None),
        ("What is it?", "what is it?"),
        (f"Look.\n\nWhat is it?\n{HOW}", "what is it?"),
        ("what", None),
        ("", None),
    ],
)
def test_questions_are_found_in_prompts(prompt: str, found: str | None) -> None:
    assert find_question(prompt, ["what is it?", "who made it?", "who\nmade it?"]) == found
