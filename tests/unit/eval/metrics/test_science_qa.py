"""ScienceQA: letters of answers, shares, files; problems as prompts."""

import json
import math
import runpy
from pathlib import Path

import pytest

from llava.errors import UsageError
from llava.eval import eval_science_qa
from llava.eval.metrics.science_qa import FAILED, Answer, Problem, chosen_letter, score
from llava.eval.science_files import ScienceProblem, read_problems, read_split
from llava.eval.science_prompts import PROMPTS, TARGETS, conversation, parse_format, prompt_and_target
from tests.unit.eval.metrics.conftest import Failing, before_evidence, orders, write_lines

ROOT = Path(__file__).resolve().parents[4]


def raw_problem(number: int, **changes: object) -> dict:
    """A problem as in problems.json."""
    return {
        "question": f"Q{number}?", "choices": ["x", "y", "z"], "answer": number % 3, "hint": "",
        "lecture": "", "solution": "", "caption": "a cat", "image": "image.png" if number % 2 else None,
    } | changes  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine problems, of which the split `test` has all, and `dev` the first three."""
    problems = {str(number): raw_problem(number) for number in range(9)}
    (tmp_path / "problems.json").write_text(json.dumps(problems), encoding="utf-8")
    splits = {"test": list(problems), "dev": ["0", "1", "2"]}
    (tmp_path / "pid_splits.json").write_text(json.dumps(splits), encoding="utf-8")
    return tmp_path


def answers(*, right: int = 6) -> list[dict]:
    """The first ones right; problems with odd numbers have pictures."""
    rows = []
    for number in range(9):
        letter = "ABC"[number % 3] if number < right else "ABC"[(number + 1) % 3]
        prompt = f"<image>\nQ{number}?" if number % 2 else f"Q{number}?"
        rows.append({"question_id": str(number), "prompt": prompt, "text": letter})
    return rows


def flags(folder: Path, rows: list[dict], split: str = "test") -> list[str]:
    """The command line for these answers."""
    path = write_lines(rows, folder / "answers.jsonl")
    return [
        "--base-dir", str(folder), "--result-file", str(path), "--split", split,
        "--output-file", str(folder / "out" / "all.json"), "--output-result", str(folder / "result.json"),
    ]  # fmt: skip


def test_no_order_of_lines_matters(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written = set()
    for rows in orders(answers()):
        eval_science_qa.main(flags(folder, rows))
        printed = capsys.readouterr().out
        files = [
            path.read_text(encoding="utf-8") for path in (folder / "out/all.json", folder / "result.json")
        ]
        written.add((printed, *files))
    ((line, _, result),) = written
    assert before_evidence(line) == "Total: 9, Correct: 6, Accuracy: 66.67%, IMG-Accuracy: 75.00%\n"
    assert json.loads(result)["results"]["8"] == 0


def test_missing_answers_are_wrong_and_told(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    eval_science_qa.main(flags(folder, answers()[1:], "dev"))
    assert "1 question has no answer, first 0; counted as wrong" in caplog.text
    assert json.loads((folder / "result.json").read_text(encoding="utf-8"))["correct"] == 2


def test_foreign_and_repeated_answers_are_refused(folder: Path, refusal: Failing) -> None:
    rows = answers()
    told = refusal(eval_science_qa.main, *flags(folder, [*rows, rows[4] | {"question_id": "x"}]))
    assert "1 answer belongs to no question, first x" in told
    told = refusal(eval_science_qa.main, *flags(folder, [*rows, rows[4] | {"text": "B"}]))
    assert "1 question is answered more than once, first 4" in told
    assert not (folder / "result.json").exists()


def test_without_pictures_their_accuracy_is_no_number(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    eval_science_qa.main(flags(folder, [row | {"prompt": "?"} for row in answers()]))
    assert before_evidence(capsys.readouterr().out).endswith("IMG-Accuracy: nan%\n")
    assert math.isnan(score([], {}).accuracy)


def test_broken_files_and_splits_are_told(folder: Path, refusal: Failing) -> None:
    assert "did you mean test?" in refusal(eval_science_qa.main, *flags(folder, answers(), "tset"))
    broken = {
        "0": raw_problem(0, choices=[]),
        "1": raw_problem(1, answer=3),
        "2": 5,
        "3": raw_problem(3, image=1),
    }
    (folder / "problems.json").write_text(json.dumps(broken), encoding="utf-8")
    told = refusal(eval_science_qa.main, *flags(folder, answers()))
    for text in (
        "4 problems",
        "problem 0, choices",
        "problem 1, answer: found 3; the place of a choice, 0 to 2, was wanted",
        "problem 2: found a number",
        "problem 3, image: found a number (1)",
    ):
        assert text in told
    (folder / "problems.json").write_text(json.dumps({"0": raw_problem(0)}), encoding="utf-8")
    told = refusal(eval_science_qa.main, *flags(folder, answers()))
    assert "8 ids of test have no problem, first 1, 2" in told


@pytest.mark.parametrize("options", ["ABCDE", "A,B,C,D,E", "a, b, c"])
def test_letters_are_given_together_or_apart(options: str, folder: Path) -> None:
    eval_science_qa.main([*flags(folder, answers()), "--options", options])
    correct = json.loads((folder / "result.json").read_text(encoding="utf-8"))["correct"]
    assert correct == (6 if options.isupper() else 0)


def test_too_few_letters_are_refused(folder: Path, refusal: Failing) -> None:
    told = refusal(eval_science_qa.main, *flags(folder, answers()), "--options", "AB")
    assert "problem 2 has its right choice behind the last of the letters A, B" in told


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"), ("E", "E"), ("B. because", "B"), ("The answer is C.", "C"),
        ("So: The answer is D. Yes", "D"),
        ("The answer is A. The answer is B.", FAILED), ("the answer is A.", FAILED), ("A.", FAILED),
        ("(B)", FAILED), ("", FAILED), ("b", FAILED), ("F", FAILED), ("The answer is F.", "F"),
    ],
)  # fmt: skip
def test_letters_are_read_as_published(text: str, letter: str) -> None:
    assert chosen_letter(text) == letter


def test_a_letter_that_is_not_offered_is_no_choice() -> None:
    scores = score([Problem("p", 2, 0)], {"p": Answer("C", "?")})
    assert scores.choices == {"p": -1}
    assert scores.incorrect[0]["parsed_ans"] == "C"


def problem(**changes: object) -> ScienceProblem:
    """A problem with all parts."""
    values = {
        "problem_id": "7", "question": "Q?", "choices": ("x", "y"), "answer": 1, "hint": "H", "caption": "C",
        "lecture": "lec", "solution": "sol", "image": None,
    }  # fmt: skip
    return ScienceProblem(**(values | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("before", PROMPTS)
@pytest.mark.parametrize("behind", TARGETS)
def test_formats_name_what_stands_where(before: str, behind: str) -> None:
    prompt, target = prompt_and_target(problem(), parse_format(f"{before}-{behind}"))
    assert ("lec" in prompt, "sol" in prompt) == ("L" in before, "E" in before)
    assert "(A) x (B) y" in prompt
    assert prompt.index("Q?") != prompt.index("Context: H")
    assert "answer is B." in target or "ANSWER: B." in target
    swapped = {"AL": "AE", "AE": "AL"}.get(behind, behind)  # so the authors' published data have it
    assert ("lec" in target, "sol" in target) == ("L" in swapped, "E" in swapped)


def test_empty_parts_leave_no_because_behind() -> None:
    bare = problem(lecture="", solution="", hint=" ")
    prompt, target = prompt_and_target(bare, parse_format("QCMLE-ALE"))
    assert prompt == "Q?\nContext: N/A\nOptions: (A) x (B) y"
    assert target == "The answer is B."


def test_braces_and_words_of_the_format_stay_in_texts() -> None:
    odd = problem(question="{answer}: Question: why? BECAUSE:", lecture="{lecture}")
    prompt, target = prompt_and_target(odd, parse_format("QCM-LA"))
    assert prompt.startswith("{answer}: Question: why? BECAUSE:\n")
    assert target == "{lecture} The answer is B."


@pytest.mark.parametrize("name", ["QCM", "QCM-", "-A", "XYZ-A", "QCM-AX", ""])
def test_unknown_formats_list_the_known(name: str) -> None:
    with pytest.raises(UsageError, match=r"one of CQM, QCM, .*, LEPA"):
        parse_format(name)


def test_six_choices_have_no_letters() -> None:
    with pytest.raises(UsageError, match="problem 7 has 6 choices; 5 have letters"):
        prompt_and_target(problem(choices=tuple("uvwxyz")), parse_format("QCM-A"))


def test_the_helper_of_forks(folder: Path) -> None:
    build = runpy.run_path(str(ROOT / "scripts" / "convert_sqa_to_llava_base_prompt.py"))[
        "build_prompt_chatbot"
    ]
    raw = {"1": raw_problem(1), "2": raw_problem(2, hint="H")}
    built = build(raw, ["2", "1"], "QCM-A")
    assert list(built) == ["2", "1"]
    assert built["1"] == (
        "Question: Q1?\nContext: N/A\nOptions: (A) x (B) y (C) z",
        "Answer: The answer is B.",
    )
    (prompt, target) = build(raw, ["2"], "CQM-A", use_caption=True, is_test=True)["2"]
    assert prompt.startswith("Context: H a cat\nQuestion: Q2?")
    assert target == "Answer:"
    assert "(1) x (2) y (3) z" in build(raw, ["2"], "QCM-A", options=["1", "2", "3"])["2"][0]
    with pytest.raises(UsageError, match="problem 9"):
        build(raw, ["9"], "QCM-A")


def test_pictures_are_named_below_the_problem(folder: Path) -> None:
    problems = read_problems(folder)
    samples = [conversation(one, parse_format("QCM-A")) for one in read_split(folder, "dev", problems)]
    assert [sample.get("image") for sample in samples] == [None, "1/image.png", None]
    assert [sample["conversations"][0]["value"].endswith("\n<image>") for sample in samples] == [
        False,
        True,
        False,
    ]
