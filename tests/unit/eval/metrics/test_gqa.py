"""GQA: exact words in any order of lines, parts by type, and files that do not belong together."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llava.eval import eval_gqa
from llava.eval.metrics.gqa import GqaQuestion, figures_of, predicted, score
from llava.eval.results_file import read_results
from llava.eval.scored_file import read_scored
from tests.unit.eval.metrics.conftest import Failing, before_evidence, orders, write_lines

TRUTH = {
    "201": ("n1", "yes", "verify", "attr"),
    "202": ("n1", "dog", "query", "obj"),
    "203": ("n2", "left", "choose", "rel"),
    "204": ("n3", "no", "logical", "attr"),
    "205": ("n3", "red", "query", "attr"),
}


def questions() -> dict[str, dict]:
    """The benchmark's file."""
    return {
        name: {
            "imageId": image, "question": "What?", "answer": answer, "fullAnswer": f"It is {answer}.",
            "isBalanced": True, "groups": {"global": None, "local": "x"}, "entailed": [],
            "equivalent": [name],
            "types": {"structural": structural, "semantic": semantic, "detailed": "d"}, "semantic": [],
        }
        for name, (image, answer, structural, semantic) in TRUTH.items()
    }  # fmt: skip


ANSWERS = [
    {"question_id": "201", "text": "Yes."},
    {"question_id": 202, "text": "a dog"},
    {"question_id": "203", "text": "LEFT"},
    {"question_id": "204", "text": ""},
    {"question_id": "205", "text": "red"},
]


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    """The command line."""
    (tmp_path / "q.json").write_text(json.dumps(questions()))
    write_lines(ANSWERS, tmp_path / "merge.jsonl")
    return ["--questions", str(tmp_path / "q.json"), "--answers", str(tmp_path / "merge.jsonl")]


def test_no_order_of_lines_matters(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = set()
    for rows in orders(ANSWERS):
        write_lines(rows, tmp_path / "merge.jsonl")
        eval_gqa.main(flags)
        printed.add(capsys.readouterr().out)
    (text,) = printed
    assert before_evidence(text) == (
        "Accuracy: 60.00% (5 questions)\nBinary: 66.67% (3 questions)\nOpen: 50.00% (2 questions)\n"
        "Structural choose: 100.00% (1 questions)\nStructural logical: 0.00% (1 questions)\n"
        "Structural query: 50.00% (2 questions)\nStructural verify: 100.00% (1 questions)\n"
        "Semantic attr: 66.67% (3 questions)\nSemantic obj: 0.00% (1 questions)\n"
        "Semantic rel: 100.00% (1 questions)\n"
    )
    assert "Evidence: n=5, 60.0 %" in text
    assert "bootstrap over pictures), 20.0 % unparsable, 0 missing" in text


def test_results_are_written(tmp_path: Path, flags: list[str]) -> None:
    eval_gqa.main([*flags, "--results-dir", str(tmp_path / "out")])
    results = read_results(tmp_path / "out" / "results.json")
    assert (results.benchmark, results.headline, results.figures["accuracy"].value) == ("gqa", "accuracy", 60)
    assert list(results.truth) == ["q.json"]
    rows = {row.question_id: row for row in read_scored(tmp_path / "out" / "scored.jsonl")}
    assert rows["202"].parsed == "a dog"
    assert (rows["203"].value, rows["203"].image, rows["203"].group) == (1, "n2", "choose")
    assert rows["204"].parsed is None


def test_missing_answers_are_wrong_and_told(
    tmp_path: Path, flags: list[str], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    failed = {"question_id": "205", "text": "", "metadata": {"error": "picture is broken"}}
    write_lines([*ANSWERS[:3], failed], tmp_path / "merge.jsonl")
    eval_gqa.main(flags)
    assert "2 questions have no answer, first 204, 205; counted as wrong" in caplog.text
    told = capsys.readouterr().out
    assert "Accuracy: 40.00%" in told
    assert "Coverage: 60.00% (3 of 5 questions have an answer)" in told
    assert "0.0 % unparsable, 2 missing" in told


def test_foreign_and_repeated_answers_are_refused(tmp_path: Path, flags: list[str], refusal: Failing) -> None:
    write_lines([*ANSWERS, {"question_id": "9", "text": "x"}], tmp_path / "merge.jsonl")
    assert "1 answer belongs to no question, first 9" in refusal(eval_gqa.main, *flags)
    write_lines([*ANSWERS, ANSWERS[0]], tmp_path / "merge.jsonl")
    assert "1 question is answered more than once, first 201" in refusal(eval_gqa.main, *flags)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "is empty"),
        ("{}", "holds no questions"),
        ("[]", "an array"),
        ('{"1": []}', "question 1: found an array"),
        ('{"1": {"imageId": "a", "types": {"structural": "s"}}}', "those of the test and challenge"),
        ('{"1": {"imageId": "a", "answer": "b", "types": 3}}', "question 1, types, semantic: found null"),
    ],
)
def test_broken_question_files_are_told(
    tmp_path: Path, flags: list[str], refusal: Failing, content: str, told: str
) -> None:
    (tmp_path / "q.json").write_text(content)
    assert told in refusal(eval_gqa.main, *flags)


def test_empty_answers_are_told(tmp_path: Path, flags: list[str], refusal: Failing) -> None:
    (tmp_path / "merge.jsonl").write_text("")
    assert "merge.jsonl is empty" in refusal(eval_gqa.main, *flags)


@settings(max_examples=20, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(TRUTH)), st.sampled_from(["Yes.", "dog", "no", ""])))
def test_figures_are_means_of_rows(answers: dict[str, str]) -> None:
    asked = [GqaQuestion(name, *values) for name, values in TRUTH.items()]
    rows = score(asked, answers)
    right = sum(predicted(answers.get(name, "?")) == TRUTH[name][1] for name in TRUTH)
    figures = figures_of(asked, rows)
    assert figures["accuracy"].value == pytest.approx(100 * right / 5)
    assert figures["accuracy"].n == figures["binary"].n + figures["open"].n
    assert figures["accuracy"] == figures_of(asked, rows[::-1])["accuracy"]
    assert sum(row.missing for row in rows) == 5 - len(answers)
