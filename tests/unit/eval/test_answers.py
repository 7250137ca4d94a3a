"""The answers file: its lines, and what is taken up or refused of one that is there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval.answers import AnswerFile, RunIdentity
from llava.eval.questions import Question, Round

ONE = Question("a", "Who?", None, None, None)
TURNED = [
    Question(5, f"Which? {number}", None, "p", None, "Which?", Round(number, ("x", "y"), ("A", "B")))
    for number in range(3)
]
IDENTITY = RunIdentity("model", {"seed": 0})


def write(path: Path, questions: list[Question], *, upto: int) -> AnswerFile:
    """An answers file with its first answers, given in the wrong order."""
    file = AnswerFile(path, questions, IDENTITY)
    start = file.open()
    for number in reversed(range(start, upto)):
        file.add(number, f"text {number}")
        file.flush()
    return file


def test_rounds_have_keys_of_their_own_in_order(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [ONE, TURNED[1]], upto=2)
    plain, turned = map(json.loads, (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines())
    assert list(plain) == ["question_id", "prompt", "text", "answer_id", "model_id", "metadata"]
    assert list(turned) == [
        "question_id", "round_id", "prompt", "text", "options", "option_char", "answer_id", "model_id",
        "metadata",
    ]  # fmt: skip
    assert turned["prompt"] == "Which?", "what is shown, not what is asked"
    assert (turned["round_id"], turned["options"], turned["option_char"]) == (1, ["x", "y"], ["A", "B"])


def test_a_file_is_taken_up_within_a_question(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, TURNED, upto=2)
    before = path.read_text(encoding="utf-8")
    path.write_text(before + '{"question_id": 5, "ro', encoding="utf-8")
    file = write(path, TURNED, upto=3)
    assert file.done == 3
    after = path.read_text(encoding="utf-8")
    assert after.startswith(before)
    assert [json.loads(line)["text"] for line in after.splitlines()] == ["text 0", "text 1", "text 2"]


@pytest.mark.parametrize(
    ("questions", "parts"),
    [
        ([TURNED[1], TURNED[0]], ["line 1 answers question 5 in round 0", "has question 5 in round 1"]),
        ([replace(TURNED[0], prompt="What?"), TURNED[1]], ["'Which?'", "'What?'"]),
        ([TURNED[0]], ["line 2", "the question file has nothing there"]),
        ([replace(TURNED[0], question_id="5"), TURNED[1]], ["answers question 5 ", "has question '5'"]),
    ],
)
def test_answers_to_other_questions_are_refused(
    questions: list[Question], parts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "a.jsonl"
    write(path, TURNED[:2], upto=2)
    before = path.read_bytes()
    with pytest.raises(UsageError) as caught:
        write(path, questions, upto=0)
    for part in parts:
        assert part in str(caught.value)
    assert path.read_bytes() == before


@pytest.mark.parametrize("line", ["nothing of this kind", "[1]"])
def test_a_damaged_line_is_told(line: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, [ONE], upto=1)
    path.write_text(f"{line}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1 answers nothing, but the question file has question 'a'"):
        write(path, [ONE], upto=0)
