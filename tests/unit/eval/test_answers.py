"""The answers file: its lines, and what is taken up or refused of one that is there."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval.answers import AnswerFile
from llava.eval.outcomes import Failure
from llava.eval.questions import Question, Round
from llava.eval.run_identity import RunIdentity

ONE = Question("a", "Who?", None, None, None)
TURNED = [
    Question(5, f"Which? {number}", None, "p", None, "Which?", Round(number, ("x", "y"), ("A", "B")))
    for number in range(3)
]
IDENTITY = RunIdentity("model", {"seed": 0})


def write(path: Path, questions: list[Question], *, upto: int) -> AnswerFile:
    """An answers file with its first answers, given in the wrong order."""
    with AnswerFile(path, questions) as file:
        start = file.open(IDENTITY)
        for number in reversed(range(start, upto)):
            file.add(number, f"text {number}")
            file.flush()
        file.finish()
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


def rows_of(path: Path) -> list[dict]:
    """The lines of a file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def names(folder: Path) -> set[str]:
    """What lies in a folder."""
    return {file.name for file in folder.iterdir()}


def numbered(count: int) -> list[Question]:
    """Questions 0 to `count`."""
    return [Question(number, f"What is {number}?", None, None, None) for number in range(count)]


def test_answers_that_wait_survive(tmp_path: Path) -> None:
    path, questions = tmp_path / "a.jsonl", numbered(6)
    with AnswerFile(path, questions) as file:
        file.open(IDENTITY)
        for number in (0, 5, 3):
            file.add(number, f"text {number}")
            file.flush()
    assert names(tmp_path) == {"a.jsonl", "a.jsonl.part", "a.jsonl.run.json"}
    part = tmp_path / "a.jsonl.part"
    part.write_bytes(part.read_bytes()[:-9])
    with AnswerFile(path, questions) as file:
        assert file.open(IDENTITY) == 2
        assert file.todo() == [1, 2, 3, 4], "the torn line is lost, the one before it is not"
        for number in file.todo():
            file.add(number, f"new {number}")
        file.flush()
        file.finish()
    assert [row["text"] for row in rows_of(path)] == ["text 0", "new 1", "new 2", "new 3", "new 4", "text 5"]
    assert names(tmp_path) == {"a.jsonl", "a.jsonl.run.json"}


def test_failed_questions_are_asked_again_and_the_other_lines_stay(tmp_path: Path) -> None:
    path, questions = tmp_path / "a.jsonl", numbered(5)
    with AnswerFile(path, questions) as file:
        file.open(IDENTITY)
        for number in range(5):
            file.add(number, Failure(f"no picture {number}") if number in (1, 3) else f"text {number}")
        file.flush()
        file.finish()
        assert [reason for _, reason in file.failures()] == ["no picture 1", "no picture 3"]
    before = path.read_bytes().splitlines()
    assert json.loads(before[1])["metadata"] == {"error": "no picture 1"}
    assert json.loads(before[1])["text"] == ""
    assert json.loads(before[0])["metadata"] == {}
    with AnswerFile(path, questions) as file:
        assert file.open(IDENTITY) == 3
        assert file.todo() == [1, 3]
        file.add(3, "mended")
        file.flush()
        assert path.read_bytes().splitlines() == before, "until the end of the run"
    with AnswerFile(path, questions) as file:  # a crash came before that end
        assert file.todo() == [] or file.open(IDENTITY) == 4
        assert file.todo() == [1]
        file.add(1, Failure("no picture 1"))
        file.finish()
        assert [question.question_id for question, _ in file.failures()] == [1]
    after = path.read_bytes().splitlines()
    assert [after[number] == before[number] for number in range(5)] == [True, True, True, False, True]
    assert json.loads(after[3])["text"] == "mended"
    assert names(tmp_path) == {"a.jsonl", "a.jsonl.run.json"}


def test_overwriting_keeps_the_old_file_with_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write(path, TURNED, upto=2)
    old = path.read_bytes()
    for round_number, kept in enumerate(("a.jsonl.bak", "a.jsonl.bak2")):
        with AnswerFile(path, TURNED) as file:
            assert file.open(RunIdentity("other", {}), overwrite=True) == 0
            assert path.read_bytes() == b""
        assert ((tmp_path / kept).read_bytes() == old) == (round_number == 0)
    assert (tmp_path / "a.jsonl.bak.run.json").is_file()
    with AnswerFile(tmp_path / "a.jsonl.bak", TURNED) as file:
        assert file.open(IDENTITY) == 2, "it can be gone on with"


def test_every_difference_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    then = {"seed": 0, "temperature": 0.0, "weights": "a" * 64, "image_folder": "/then"}
    with AnswerFile(path, TURNED) as file:
        file.open(RunIdentity("model", then))
        file.add(0, "text")
        file.flush()
    now = {"seed": 0, "temperature": 0.5, "weights": "b" * 64, "image_folder": "/now", "dtype": "float16"}
    with AnswerFile(path, TURNED) as file, pytest.raises(UsageError) as caught:
        file.open(RunIdentity("model", now))
    assert str(caught.value).splitlines()[1:-1] == [
        "  dtype: then not set, now 'float16'",
        "  image_folder: then '/then', now '/now'",
        "  temperature: then 0.0, now 0.5",
        "  weights: then aaaaaaaaaaaa..., now bbbbbbbbbbbb...",
    ]


def test_questions_may_follow_but_not_change(tmp_path: Path) -> None:
    """Also pictures, which no line names, and questions that are not answered yet."""
    path, questions = tmp_path / "a.jsonl", numbered(3)
    write(path, questions, upto=1)
    other = [*questions[:2], replace(questions[2], image="b.png")]
    for changed in (other, questions[:2]):
        with AnswerFile(path, changed) as file, pytest.raises(UsageError, match="questions: the file had"):
            file.open(IDENTITY)
    longer = numbered(5)
    write(path, longer, upto=5)
    assert [row["question_id"] for row in rows_of(path)] == [0, 1, 2, 3, 4]
    with AnswerFile(path, questions) as file, pytest.raises(UsageError, match="line 4"):
        file.check()


def test_a_file_of_an_earlier_version_is_taken_up(tmp_path: Path) -> None:
    """Its identity says neither folder nor configuration nor questions."""
    path = tmp_path / "a.jsonl"
    write(path, TURNED, upto=2)
    side = tmp_path / "a.jsonl.run.json"
    side.write_text(json.dumps({"model_id": "model", "seed": 0}), encoding="utf-8")
    with AnswerFile(path, TURNED) as file:
        assert file.open(RunIdentity("model", {"seed": 0, "config": "c", "image_folder": "f"})) == 2


def test_prompt_and_versions_are_told_and_never_compared(tmp_path: Path) -> None:
    path, side = tmp_path / "a.jsonl", tmp_path / "a.jsonl.run.json"
    with AnswerFile(path, TURNED) as file:
        file.open(replace(IDENTITY, prompt="USER: {question}"))
        file.add(0, "text")
        file.flush()
    told = json.loads(side.read_text(encoding="utf-8"))
    assert told["prompt"] == "USER: {question}"
    assert told["versions"]["llava"]
    side.write_text(json.dumps(told | {"versions": {"llava": "1.0"}, "prompt": None}), encoding="utf-8")
    with AnswerFile(path, TURNED) as file:
        assert file.open(IDENTITY) == 1
    for _ in range(2):
        again = json.loads(side.read_text(encoding="utf-8"))
        assert again["versions"] == told["versions"]
        assert again["earlier_versions"] == [{"llava": "1.0"}]
        with AnswerFile(path, TURNED) as file:
            file.open(IDENTITY)


def test_halves_of_characters_are_written(tmp_path: Path) -> None:
    with AnswerFile(tmp_path / "a.jsonl", [ONE]) as file:
        file.open(IDENTITY)
        file.add(0, "a \ud83d b \ud83d\ude00")
        file.flush()
    assert rows_of(tmp_path / "a.jsonl")[0]["text"] == "a \ufffd b \U0001f600"


def test_a_picture_is_told_by_its_name(tmp_path: Path) -> None:
    shown = Question(1, "Who?", "a/b.png", "/home/me/pictures/a/b.png", None)
    with AnswerFile(tmp_path / "a.jsonl", [shown]) as file:
        file.open(IDENTITY)
        file.add(0, Failure("the picture /home/me/pictures/a/b.png is damaged"))
        file.flush()
    assert rows_of(tmp_path / "a.jsonl")[0]["metadata"] == {"error": "the picture a/b.png is damaged"}
