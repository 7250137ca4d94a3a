"""The benchmark scripts ask and score as the original's: the same programs, files and flags."""

import json
from pathlib import Path

import pytest

from tests.benchmark_data import FOLDERS, make_benchmarks
from tests.e2e.conftest import run_script
from tests.parity.golden import golden

ORIGINAL = "./playground/data/eval"
FAKE = """#!/usr/bin/env python3
import json, sys
with open({log!r}, "a") as log:
    log.write(json.dumps(sys.argv[1:]) + "\\n")
"""
VARIABLES = {
    "vqav2": {"$SPLIT": "llava_vqav2_mscoco_test-dev2015"},
    "gqa": {"$SPLIT": "llava_gqa_testdev_balanced"},
    "mmbench": {"$SPLIT": "mmbench_dev_20230712"},
    "mmbench_cn": {"$SPLIT": "mmbench_dev_cn_20231003"},
    "qbench": {"$1": "dev"},
    "qbench_zh": {"$ZH_SPLIT": "验证集"},
}
"""What the original's scripts set before their commands."""
OURS = {
    "convert_answer_to_mme.py": "llava.eval.eval_mme",
    "calculation.py": "llava.eval.eval_mme",
    "eval/eval.py": "llava.eval.eval_gqa",
}
"""Programs of the benchmarks themselves, and what scores here."""
COMPARED = ("--question-file", "--questions-file", "--image-folder", "--temperature", "--lang",
            "--single-pred-prompt", "--annotation-dir", "--annotation-file", "--base-dir", "--question",
            "--context")  # fmt: skip
"""Flags whose values must be the same; answers lie in a folder per checkpoint here."""


@pytest.fixture(scope="module")
def eval_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All benchmarks."""
    folder = tmp_path_factory.mktemp("eval")
    make_benchmarks(folder)
    return folder


def commands(script: str, eval_dir: Path, folder: Path) -> list[tuple[str, dict[str, str | bool]]]:
    """(program, flags) of what a script runs."""
    log, fake = folder / "log", folder / "python"
    fake.write_text(FAKE.format(log=str(log)), encoding="utf-8")
    fake.chmod(0o755)
    result = run_script(
        f"scripts/v1.5/eval/{script}.sh", MODEL_PATH="liuhaotian/llava-v1.5-13b", EVAL_DIR=eval_dir,
        PYTHON=fake, OPENAI_API_KEY="secret",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert "secret" not in str(lines)
    words = [line[1:] if line[0] == "-m" else line for line in lines]
    return [(program, flags_of(rest)) for program, *rest in words]


def flags_of(words: list[str]) -> dict[str, str | bool]:
    """Flag -> its value, True for a bare one."""
    flags: dict[str, str | bool] = {}
    for word, after in zip(words, [*words[1:], "--"], strict=True):
        if word.startswith("--"):
            flags[word] = True if after.startswith("--") else after
    return flags


def resolved(value: object, script: str, eval_dir: Path) -> object:
    """A value of the original's script with its variables, in our folder."""
    if not isinstance(value, str):
        return value
    for name, text in VARIABLES.get(script, {}).items():
        value = value.replace(name, text)
    for start in (ORIGINAL, ORIGINAL.removeprefix("./")):
        if value.startswith(start):
            return str(eval_dir / value.removeprefix(start).strip("/"))
    return value


@pytest.mark.parametrize("script", list(FOLDERS))
def test_a_script_runs_what_the_originals_does(script: str, eval_dir: Path, tmp_path: Path) -> None:
    entries = golden("cli/script_flags.json")["scripts"]
    (entry,) = (one for one in entries if one["script"] == f"scripts/v1_5/eval/{script}.sh")
    ours = dict(commands(script, eval_dir, tmp_path))
    compared = 0
    for command in entry["commands"]:
        program = OURS.get(command["program"], command["program"])
        assert program in ours, program
        for flag, value in command["flags"]:
            if flag in COMPARED and program == command["program"]:
                name = {"--questions-file": "--question-file"}.get(flag, flag)
                assert ours[program][name] == resolved(value, script, eval_dir), flag
                compared += 1
    assert compared >= 3


def test_the_checkpoints_name_is_where_answers_go(eval_dir: Path, tmp_path: Path) -> None:
    flags = dict(commands("pope", eval_dir, tmp_path))["llava.eval.model_vqa_loader"]
    assert flags["--model-path"] == "liuhaotian/llava-v1.5-13b"
    assert flags["--answers-file"] == str(eval_dir / "pope/answers/llava-v1.5-13b/merge.jsonl")
