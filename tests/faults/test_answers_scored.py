"""Scores of answer files that are short, long, shuffled, foreign, or say errors: refused, or with coverage.

The files are those of the recorded runs, changed; a figure over a part is never printed without saying so.
"""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from llava.eval import eval_pope, eval_science_qa, eval_textvqa, score_personal, summarize_gpt_review
from tests.faults.conftest import REFUSED, SURVIVED, FaultLog
from tests.parity.golden import DATA

METRICS = DATA / "metrics"
SEED_PROGRAM = Path(__file__).resolve().parents[2] / "scripts" / "convert_seed_for_submission.py"

Rows = list[dict]
FOREIGN = "nobody-asked-this"


def pope(answers: Path, out: Path) -> None:
    """POPE."""
    eval_pope.main(
        ["--annotation-dir", str(METRICS / "pope" / "coco"), "--result-file", str(answers),
         "--question-file", str(METRICS / "pope" / "questions.jsonl")]
    )  # fmt: skip


def textvqa(answers: Path, out: Path) -> None:
    """TextVQA."""
    annotations = str(METRICS / "textvqa" / "annotations.json")
    eval_textvqa.main(["--annotation-file", annotations, "--result-file", str(answers)])


def science(answers: Path, out: Path) -> None:
    """ScienceQA."""
    eval_science_qa.main(
        ["--base-dir", str(METRICS / "scienceqa"), "--result-file", str(answers), "--split", "minitest"]
    )


def seed(answers: Path, out: Path) -> None:
    """SEED-Bench."""
    program = runpy.run_path(str(SEED_PROGRAM))
    program["main"](
        ["--annotation-file", str(METRICS / "seed" / "annotations.json"), "--result-file", str(answers),
         "--result-upload-file", str(out / "upload.jsonl")]
    )  # fmt: skip


def personal(answers: Path, out: Path) -> None:
    """Taught identities; a truth file for the answers is made from them."""
    truth = out / "truth.jsonl"
    rows = [
        {"question_id": number, "split": "name", "answer": "Mismi", "identity": "Mismi", "direction": None}
        for number in range(6)
    ]
    truth.write_text("".join(json.dumps(row) + "\n" for row in rows))
    score_personal.main(["--truth", str(truth), "--answers", str(answers), "--out", str(out / "scores.json")])


def rows_of(path: Path) -> Rows:
    """JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def whole(name: str) -> Rows:
    """A complete answer file of a benchmark."""
    if name == "personal":
        return [{"question_id": number, "prompt": "Who?", "text": "Mismi"} for number in range(6)]
    rows = rows_of(METRICS / ("scienceqa" if name == "science" else name) / "answers.jsonl")
    if name == "science":  # the recorded file lacks an answer
        known = {str(row["question_id"]) for row in rows}
        asked = json.loads((METRICS / "scienceqa" / "pid_splits.json").read_text())["minitest"]
        rows += [{**rows[0], "question_id": one} for one in asked if one not in known]
        rows.sort(key=lambda row: str(row["question_id"]) not in asked)
    return rows


SCORERS: dict[str, Callable[[Path, Path], None]] = {
    "pope": pope, "textvqa": textvqa, "science": science, "seed": seed, "personal": personal,
}  # fmt: skip
CHANGES: dict[str, Callable[[Rows], Rows]] = {
    "shuffled": lambda rows: rows[::-1],
    "short": lambda rows: rows[1:],
    "error": lambda rows: [{**rows[0], "text": "", "metadata": {"error": "no picture"}}, *rows[1:]],
    "twice": lambda rows: [*rows, rows[0]],
    "foreign": lambda rows: [*rows, {**rows[0], "question_id": FOREIGN}],
    "torn": lambda rows: rows,
}
COVERAGE = {"textvqa", "science"}
"""These score a part, as the original does; the others want all answers."""


def score(name: str, rows: Rows, tmp_path: Path, *, torn: bool = False) -> int:
    """Score a file; the exit code."""
    answers = tmp_path / "answers.jsonl"
    text = "".join(json.dumps(row) + "\n" for row in rows)
    answers.write_text(text[:-9] if torn else text, encoding="utf-8")
    try:
        SCORERS[name](answers, tmp_path)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.parametrize("name", SCORERS)
def test_other_files_than_the_whole_one(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture,
    fault_log: FaultLog,
) -> None:  # fmt: skip
    rows = whole(name)
    assert score(name, rows, tmp_path) == 0
    wanted = capsys.readouterr().out
    assert wanted
    assert "Coverage" not in wanted
    for change, make in CHANGES.items():
        caplog.clear()
        code = score(name, make(rows), tmp_path, torn=change == "torn")
        told = capsys.readouterr()
        if change == "shuffled":
            assert (code, told.out) == (0, wanted), "answers belong to questions by their id"
        elif change in ("short", "error") and name in COVERAGE:
            assert code == 0
            assert "Coverage: " in told.out
            assert change != "error" or "could not be answered" in caplog.text
        else:
            assert code == 2, change
            assert told.out == "", "no score beside an error"
            assert "error: " in told.err
    kept = "a part scored with its coverage" if name in COVERAGE else "incomplete refused"
    fault_log(f"E9 scores of odd files, {name}", f"foreign, twice, torn refused; {kept}", REFUSED, 5)
    fault_log(f"E9 shuffled file, {name}", "the same score", SURVIVED)


def test_an_error_is_no_wrong_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """TextVQA: the score of the others is what it is without the line."""
    rows = whole("textvqa")
    for position in range(len(rows)):
        failed = {**rows[position], "text": "", "metadata": {"error": "no picture"}}
        assert score("textvqa", [*rows[:position], failed, *rows[position + 1 :]], tmp_path) == 0
        with_error = capsys.readouterr().out
        assert score("textvqa", [*rows[:position], *rows[position + 1 :]], tmp_path) == 0
        assert capsys.readouterr().out == with_error


def test_reviews_without_scores(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fault_log: FaultLog
) -> None:
    reviews = [{"question_id": number, "tuple": [8, 4], "category": "conv"} for number in range(4)]
    reviews[2]["tuple"] = [-1, -1]
    file = tmp_path / "review_a.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in reviews))
    summarize_gpt_review.main(["-f", str(file)])
    told = capsys.readouterr().out
    assert "all 50.0 80.0 40.0" in told
    assert "Coverage: 75.00% (3 of 4 reviews have scores)" in told
    fault_log("E9 reviews without scores", "means with their coverage", SURVIVED)
