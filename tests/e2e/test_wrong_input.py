"""What users do wrong is one clear message and exit code 2, without a traceback, before a model is loaded."""

import json
import subprocess
from pathlib import Path

from tests.e2e.conftest import BASE, run_module, run_script, training_variables


def assert_told(result: subprocess.CompletedProcess, *words: str) -> None:
    """Exit code 2, no traceback, and the words in the message."""
    assert result.returncode == 2, result.stderr[-2000:]
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr, result.stderr[-2000:]


def test_unknown_flag_names_the_nearest(lesson: Path, tmp_path: Path) -> None:
    variables = training_variables(lesson, tmp_path / "out")
    result = run_script("scripts/v1.5/finetune_task_lora.sh", "--learning_rat", "1e-3", **variables)
    assert_told(result, "--learning_rat", "--learning_rate")
    assert not (tmp_path / "out").exists()


def test_all_rows_are_checked_first(lesson: Path, tmp_path: Path) -> None:
    rows = json.loads((lesson / "train.json").read_text(encoding="utf-8"))
    rows[2]["image"] = "no such.png"
    rows[5]["conversations"][0]["from"] = "user"
    rows[7]["conversations"] = rows[7]["conversations"][:1]
    broken = tmp_path / "broken.json"
    broken.write_text(json.dumps(rows), encoding="utf-8")
    variables = training_variables(lesson, tmp_path / "out") | {"DATA_PATH": broken}
    result = run_script("scripts/v1.5/finetune_task.sh", **variables)
    assert_told(result, "broken.json", "no such.png", "user", "row 2", "row 5", "row 7")


def test_missing_model_and_questions_are_told(lesson: Path, tmp_path: Path) -> None:
    flags = ["--image-folder", str(lesson / "images"), "--answers-file", str(tmp_path / "a.jsonl")]
    questions = ["--question-file", str(lesson / "questions.jsonl")]
    result = run_module("llava.eval.model_vqa_loader", "--model-path", str(tmp_path), *questions, *flags)
    assert_told(result, "config.json")
    missing = ["--question-file", str(tmp_path / "nothing.jsonl")]
    result = run_module("llava.eval.model_vqa_loader", "--model-path", str(BASE), *missing, *flags)
    assert_told(result, "nothing.jsonl")
