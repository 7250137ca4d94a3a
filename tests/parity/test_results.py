"""results.json and scored.jsonl of the original's scorers on the golden inputs say what is printed."""

import json
import runpy
from collections.abc import Callable
from pathlib import Path

import pytest

from llava.eval import eval_pope, eval_science_qa, eval_textvqa, summarize_gpt_review
from llava.eval.results_file import Results, read_results
from llava.eval.scored_file import Scored, read_scored
from tests.parity.golden import DATA

METRICS = DATA / "metrics"
SEED = Path(__file__).parents[2] / "scripts" / "convert_seed_for_submission.py"

SCORERS: dict[str, tuple[Callable, list[str]]] = {
    "pope": (eval_pope.main, ["--annotation-dir", "pope/coco", "--question-file", "pope/questions.jsonl",
                              "--result-file", "pope/answers.jsonl"]),
    "textvqa": (eval_textvqa.main, ["--annotation-file", "textvqa/annotations.json",
                                    "--result-file", "textvqa/answers.jsonl"]),
    "scienceqa": (eval_science_qa.main, ["--base-dir", "scienceqa", "--result-file",
                                         "scienceqa/answers.jsonl"]),
    "seed": (runpy.run_path(str(SEED))["main"],
             ["--annotation-file", "seed/annotations.json", "--result-file", "seed/answers.jsonl",
              "--result-upload-file", "OUT"]),
    "llavabench": (summarize_gpt_review.main, ["-f", "gpt_review/review_a.jsonl"]),
}  # fmt: skip


@pytest.fixture
def score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[str], tuple[str, Results, list[Scored]]]:
    """score(name): what a scorer prints, and what it writes."""

    def run(name: str) -> tuple[str, Results, list[Scored]]:
        main, flags = SCORERS[name]
        monkeypatch.chdir(METRICS)
        given = [str(tmp_path / "upload.jsonl") if flag == "OUT" else flag for flag in flags]
        main([*given, "--results-dir", str(tmp_path / name)])
        results = read_results(tmp_path / name / "results.json")
        return capsys.readouterr().out, results, read_scored(tmp_path / name / "scored.jsonl")

    return run


Score = Callable[[str], tuple[str, Results, list[Scored]]]


@pytest.mark.parametrize("name", SCORERS)
def test_files_agree_with_what_is_printed(name: str, score: Score) -> None:
    printed, results, rows = score(name)
    headline = results.figures[results.headline]
    assert results.benchmark == name
    assert results.questions["asked"] == len(rows)
    last = printed.splitlines()[-1]
    assert last.startswith(f"Evidence: n={headline.n}, {headline.value:.1f} %")
    for figure in results.figures.values():
        assert figure.low is not None
        assert figure.low <= figure.value <= figure.high


def test_pope(score: Score) -> None:
    printed, results, rows = score("pope")
    f1 = [float(line.split()[-1]) for line in printed.splitlines() if line.startswith("F1 score")]
    assert results.figures["f1"].value == pytest.approx(100 * sum(f1) / len(f1), abs=1e-4)
    parts = [figure.value for name, figure in results.figures.items() if name.startswith("f1_")]
    assert parts == pytest.approx([100 * one for one in f1], abs=1e-4)
    right = [int(one) for line in printed.splitlines() if line[:1].isdigit() and "\t" in line
             for one in line.split("\t")[:3:2]]  # fmt: skip
    assert sum(row.value for row in rows) == sum(right)
    assert set(results.truth) == {path.name for path in (METRICS / "pope/coco").iterdir()}
    odd = [row for row in rows if row.unparsable]
    assert odd, "the golden answers have some that say neither yes nor no"


def test_textvqa(score: Score) -> None:
    printed, results, rows = score("textvqa")
    assert f"Accuracy: {results.figures['accuracy'].value:.2f}%" in printed
    assert len({row.question_id for row in rows}) == len(rows)


def test_textvqa_keeps_the_originals_rule_of_missing_answers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are listed, and no figure counts them."""
    lines = (METRICS / "textvqa/answers.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "few.jsonl").write_text("".join(lines[:4]), encoding="utf-8")
    eval_textvqa.main(["--annotation-file", str(METRICS / "textvqa/annotations.json"), "--result-file",
                       str(tmp_path / "few.jsonl"), "--results-dir", str(tmp_path)])  # fmt: skip
    results = read_results(tmp_path / "results.json")
    assert (results.figures["accuracy"].n, results.questions["missing"]) == (4, len(lines) - 4)
    assert f"Accuracy: {results.figures['accuracy'].value:.2f}%" in capsys.readouterr().out


def test_several_files_have_no_common_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--annotation-file", str(METRICS / "textvqa/annotations.json")]
    with pytest.raises(SystemExit):
        eval_textvqa.main([*flags, "--result-dir", str(tmp_path), "--results-dir", str(tmp_path)])
    assert "name it with --result-file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        summarize_gpt_review.main(["-d", str(METRICS / "gpt_review"), "--results-dir", str(tmp_path)])
    assert "name it with --files" in capsys.readouterr().err


def test_scienceqa(score: Score) -> None:
    printed, results, rows = score("scienceqa")
    overall, pictured = (results.figures[name].value for name in ("accuracy", "image_accuracy"))
    assert f"Accuracy: {overall:.2f}%, IMG-Accuracy: {pictured:.2f}%" in printed
    assert results.split == "test"
    assert sum(row.missing for row in rows) == 1


def test_seed(score: Score) -> None:
    printed, results, _ = score("seed")
    figures = results.figures
    assert f"Total accuracy: {figures['accuracy'].value:.2f}%" in printed
    for kind in ("image", "video"):
        assert f"{kind} accuracy: {figures[kind].value:.2f}%" in printed
    types = {name.removeprefix("type_"): one for name, one in figures.items() if name.startswith("type_")}
    for name, one in types.items():
        assert f"{name}: {one.value:.2f}%" in printed


def test_reviews_tell_the_run_of_the_answers(score: Score, tmp_path: Path) -> None:
    printed, results, rows = score("llavabench")
    assert f"all {results.figures['relative'].value:.1f} " in printed
    for name, one in results.figures.items():
        if name.startswith("relative_"):
            assert f"{name.removeprefix('relative_')} {one.value:.1f} " in printed
    assert results.run is None
    answers = tmp_path / "answers.jsonl"
    (tmp_path / "answers.jsonl.run.json").write_text('{"model_id": "mine", "prompt": "USER: {question}"}')
    questions = tmp_path / "questions.jsonl"
    pictures = [{"question_id": row.question_id, "image": "one.jpg"} for row in rows]
    questions.write_text("".join(json.dumps(row) + "\n" for row in pictures))
    summarize_gpt_review.main([
        "-f", str(METRICS / "gpt_review/review_a.jsonl"), "--question-file", str(questions),
        "--answers-file", str(answers), "--results-dir", str(tmp_path),
    ])  # fmt: skip
    told = read_results(tmp_path / "results.json")
    assert told.run == {"model_id": "mine", "prompt": "USER: {question}"}
    assert told.prompt == "USER: {question}"
    assert {row.image for row in read_scored(tmp_path / "scored.jsonl")} == {"one.jpg"}
