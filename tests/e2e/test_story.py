"""From drawn people to the report, through the scripts that the quickstart and the sweep are made of."""

import json
from pathlib import Path

from tests.e2e.conftest import BASE, run_command, run_module

SHORT_STORY = """
source scripts/common/mini_world.sh
python -m playground.mini_world.make_people --seed 3 --identities 2 --views 2 --out "$DATA_DIR"
train_run lora lora default 3 1e-3
record_run base base "" "" "" "" "$BASE" scripts/v1.5/eval/personal.sh
evaluate_run base "$BASE"
evaluate_run lora "$RUNS/lora/checkpoint"
python -m llava.eval.report --runs "$RUNS" --data "$DATA_DIR" --out "$RUNS/report.html"
"""


def test_people_training_answers_scores_report(tmp_path: Path) -> None:
    result = run_command(
        ["bash", "-euo", "pipefail", "-c", SHORT_STORY],
        DATA_DIR=tmp_path / "data",
        RUNS=tmp_path / "runs",
        EPOCHS="0.05",
        BASE=BASE,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    page = (tmp_path / "runs" / "report.html").read_text(encoding="utf-8")
    assert len(page.encode()) < 1_000_000
    assert "<script" not in page
    assert str(tmp_path) not in page, "a report tells no one where somebody's home is"
    assert not [word for word in ('src="http', 'href="http', "url(http", "@import") if word in page]
    runs = {run["name"]: run for run in json.loads((tmp_path / "runs" / "results.json").read_text())["runs"]}
    assert set(runs) == {"base", "lora"}
    base = json.loads((tmp_path / "runs" / "base" / "scores.json").read_text())
    assert base["summary"]["retained"]["value"] > 0.9, "the base answers what it was built for"
    assert base["summary"]["names"]["value"] == 0, "nobody told it the new names"
    assert base["summary"]["stranger_refused"]["value"] > 0.9
    assert base["coverage"]["answered"] == base["coverage"]["questions"]
    assert runs["lora"]["checkpoint_sha256"] != runs["base"]["checkpoint_sha256"]
    assert runs["lora"]["base_sha256"] == runs["base"]["checkpoint_sha256"]


def test_foreign_answers_are_refused(tmp_path: Path) -> None:
    truth, answers = tmp_path / "truth.jsonl", tmp_path / "answers.jsonl"
    truth.write_text(json.dumps({"question_id": "a", "split": "name", "answer": "Anna"}) + "\n")
    answers.write_text(json.dumps({"question_id": "b", "text": "Anna"}) + "\n")
    result = run_module(
        "llava.eval.score_personal", "--truth", str(truth), "--answers", str(answers), "--out",
        str(tmp_path / "scores.json"),
    )  # fmt: skip
    assert result.returncode == 2
    assert "belong to no question" in result.stderr
    assert "Traceback" not in result.stderr
