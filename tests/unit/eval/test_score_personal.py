"""The scorer: what counts as right, what is summed up, and what it refuses."""

import json
from pathlib import Path

import pytest

from llava.eval import score_personal
from llava.eval.results_file import read_results
from llava.eval.scored_file import read_scored
from tests.unit.eval.conftest import NAMES, UNKNOWN, truth_rows, write_lines


def run(examination: Path, answers: list[dict], *flags: str) -> dict:
    """Score answers given as rows."""
    file, out = examination / "answers.jsonl", examination / "scores.json"
    write_lines(answers, file)
    truth = str(examination / "truth.jsonl")
    score_personal.main(["--truth", truth, "--answers", str(file), "--out", str(out), *flags])
    return json.loads(out.read_text(encoding="utf-8"))


def answered(**by_split: str) -> list[dict]:
    """Right answers, except that these splits get this text."""
    return [
        {
            "question_id": row["question_id"],
            "prompt": "?",
            "text": by_split.get(str(row["split"]), row["answer"]),
        }
        for row in truth_rows()
    ]


def test_a_perfect_run(examination: Path) -> None:
    scores = run(examination, answered())
    for name, value in scores["summary"].items():
        assert value["value"] == (0.0 if name.endswith(("overclaim", "claimed")) else 1.0), name
    assert scores["names"] == sorted(NAMES)
    assert scores["wrong"] == []


def test_claims_refusals_and_unparsable_answers_are_told_apart(examination: Path) -> None:
    scores = run(examination, answered(stranger="It is Mismi!", lookalike="No idea.", is_yes="Mismi"))
    summary = scores["summary"]
    assert summary["stranger_refused"]["value"] == 0.0
    assert summary["stranger_claimed"]["value"] == 1.0
    assert summary["lookalike_refused"]["value"] == 0.0, "only the refusal that was taught is right"
    assert summary["lookalike_claimed"]["value"] == 0.0
    assert summary["overclaim"]["value"] == pytest.approx(0.5)
    assert scores["splits"]["is_yes"]["unparsable"] == 3
    assert scores["splits"]["is_yes"]["accuracy"] == 0.0
    assert summary["is_balanced"]["value"] == pytest.approx(0.5), "all no right, all yes wrong"


def test_form_does_not_count_but_words_do(examination: Path) -> None:
    rows = answered()
    rows[0]["text"] = f" {NAMES[0].lower()}. "
    rows[1]["text"] = f"{NAMES[0]} and {NAMES[1]}"
    split = run(examination, rows)["splits"]["name"]
    assert (split["n"], split["correct"]) == (6, 5)
    assert split["by_identity"][NAMES[0]] == {"n": 2, "correct": 1}


def test_reversed_facts_are_reported_by_direction(examination: Path) -> None:
    parts = run(examination, answered())["splits"]["fact_reversed"]["by_direction"]
    assert {name: part["n"] for name, part in parts.items()} == {"both": 1, "one": 2}


def test_failed_questions_are_told_apart(examination: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three lines are missing and two say an error; none of the five is an answer."""
    rows = answered()[3:]
    for row in rows[:2]:
        row |= {"text": "", "metadata": {"error": "the picture one.png is damaged"}}
    with pytest.raises(SystemExit):
        run(examination, rows)
    told = capsys.readouterr().err
    assert "5 of 44 questions have no answer (coverage 88.6%)" in told
    assert "2 of them could not be answered (the picture one.png is damaged)" in told
    scores = run(examination, rows, "--allow-missing")
    assert scores["coverage"] == {"questions": 44, "answered": 39, "errors": 2}
    assert "39 of 44 questions answered (88.6%), 2 could not be answered" in capsys.readouterr().out
    assert sum(split["missing"] for split in scores["splits"].values()) == 5


def test_missing_answers_are_an_error_or_wrong(examination: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        run(examination, answered()[3:])
    assert stop.value.code == 2
    told = capsys.readouterr().err
    assert "3 of 44 questions have no answer" in told
    assert "q000" in told
    scores = run(examination, answered()[3:], "--allow-missing")
    assert scores["coverage"] == {"questions": 44, "answered": 41, "errors": 0}
    assert scores["splits"]["name"]["missing"] == 2
    assert scores["splits"]["name"]["correct"] == 4


def test_foreign_and_double_answers_are_told(examination: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        run(examination, [*answered(), {"question_id": "other", "text": "x"}])
    assert "1 answers belong to no question" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        run(examination, [*answered(), answered()[0]])
    assert "'q000' a second time" in capsys.readouterr().err


def test_the_base_is_compared_question_by_question(examination: Path) -> None:
    run(examination, answered(name="x", name_reworded="x", fact_image="x", fact_text="x"))
    base = examination / "base.json"
    (examination / "scores.json").rename(base)
    rows = answered()
    for row in rows[-2:]:
        row["text"] = "green"
    scores = run(examination, rows, "--base-scores", str(base))
    change = scores["against_base"]
    assert change["learned"]["value"] == pytest.approx(1.0)
    assert change["retained"]["value"] == pytest.approx(-0.25)
    assert change["splits"]["scene_colour"] == {
        "before": 1.0,
        "after": 0.75,
        "lost": 2,
        "gained": 0,
        "p": 0.5,
    }


def test_scores_of_other_questions_are_no_base(examination: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(examination, answered())
    base = examination / "base.json"
    base.write_text(
        (examination / "scores.json").read_text().replace('"truth_sha256": "', '"truth_sha256": "0'),
        encoding="utf-8",
    )
    with pytest.raises(SystemExit):
        run(examination, answered(stranger=UNKNOWN), "--base-scores", str(base))
    assert "another truth file" in capsys.readouterr().err


def test_evidence_is_told_and_written(examination: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = run(examination, answered(is_yes="Mismi"), "--results-dir", str(examination / "results"))
    results = read_results(examination / "results" / "results.json")
    rows = read_scored(examination / "results" / "scored.jsonl")
    assert (results.benchmark, results.headline) == ("personal", "learned")
    assert capsys.readouterr().out.splitlines()[-1].startswith("Evidence: n=")
    for name, value in scores["summary"].items():
        if value is not None:
            assert results.figures[name].value == pytest.approx(100 * value["value"]), name
            assert results.figures[name].n > 0
    assert results.figures["split_is_yes"].value == 0
    assert len(rows) == results.questions["asked"] == scores["coverage"]["questions"]
    assert results.questions["unparsable"] == 3
    assert {row.image for row in rows if row.group == "is_yes"} == set(NAMES)


def test_a_part_is_a_benchmark_of_its_own(examination: Path) -> None:
    run(examination, answered(), "--part", "retention", "--results-dir", str(examination))
    results = read_results(examination / "results.json")
    assert (results.benchmark, results.headline, results.split) == ("retention", "retained", "retention")
    assert results.figures["retained"].interval == "bootstrap over answers"
