"""Answers through the real command: batches change nothing, a torn file is taken up, chunks make the
whole.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.e2e.conftest import BASE, ROOT, run_command, run_module, script_environment


def answer(lesson: Path, answers: Path, *flags: str) -> list[dict]:
    """Answer the lesson's questions with the base model."""
    result = run_module(
        "llava.eval.model_vqa_loader",
        "--model-path", str(BASE),
        "--question-file", str(lesson / "questions.jsonl"),
        "--image-folder", str(lesson / "images"),
        "--answers-file", str(answers),
        "--temperature", "0",
        *flags,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    return [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines()]


def without_ids(rows: list[dict]) -> list[dict]:
    """Answers without their random ids."""
    return [{key: value for key, value in row.items() if key != "answer_id"} for row in rows]


def test_batches_resume_and_chunks(lesson: Path, tmp_path: Path) -> None:
    single = answer(lesson, tmp_path / "single.jsonl", "--batch-size", "1")
    questions = [
        json.loads(line) for line in (lesson / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [row["question_id"] for row in single] == [row["question_id"] for row in questions]
    assert {row["text"] for row in single} & {"yes", "no", "one", "two", "three"}, (
        "the base must answer in its words"
    )
    assert set(single[0]) == {"question_id", "prompt", "text", "answer_id", "model_id", "metadata"}

    batched = tmp_path / "batched.jsonl"
    assert without_ids(answer(lesson, batched, "--batch-size", "13")) == without_ids(single)
    lines = batched.read_bytes().splitlines(keepends=True)
    batched.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    again = answer(lesson, batched, "--batch-size", "13")
    assert without_ids(again) == without_ids(single)
    assert batched.read_bytes().splitlines(keepends=True)[:5] == lines[:5], "finished lines stay as they are"

    parts = []
    for chunk in range(3):
        file = tmp_path / f"3_{chunk}.jsonl"
        parts += answer(lesson, file, "--batch-size", "8", "--num-chunks", "3", "--chunk-idx", str(chunk))
    assert without_ids(parts) == without_ids(single)


def test_answers_of_another_run_are_not_mixed(lesson: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    answer(lesson, file, "--max_new_tokens", "2")
    result = run_module(
        "llava.eval.model_vqa_loader", "--model-path", str(BASE),
        "--question-file", str(lesson / "questions.jsonl"),
        "--image-folder", str(lesson / "images"), "--answers-file", str(file), "--max_new_tokens", "3",
    )  # fmt: skip
    assert result.returncode == 2
    assert "another --answers-file" in result.stderr
    assert "Traceback" not in result.stderr


def by_ranks(lesson: Path, answers: Path, ranks: int, *flags: str) -> list[str]:
    """The command that answers the lesson's questions by torchrun."""
    return [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks),
        "-m", "llava.eval.model_vqa", "--model-path", str(BASE),
        "--question-file", str(lesson / "questions.jsonl"), "--image-folder", str(lesson / "images"),
        "--answers-file", str(answers), "--max_new_tokens", "128", *flags,
    ]  # fmt: skip


def test_torchrun_gives_the_file_of_one_process(lesson: Path, tmp_path: Path) -> None:
    """It takes up what one process had begun, with a journal of a rank that was killed beside it."""
    single = answer(lesson, tmp_path / "single.jsonl")
    shared = tmp_path / "shared.jsonl"
    lines = (tmp_path / "single.jsonl").read_bytes().splitlines(keepends=True)
    shared.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    side = (tmp_path / "single.jsonl.run.json").read_text(encoding="utf-8")
    (tmp_path / "shared.jsonl.run.json").write_text(side, encoding="utf-8")
    kept = b'{"index": 20, "row": %s}\n' % lines[20][:-1]
    (tmp_path / "shared.jsonl.part-4-of-7").write_bytes(kept + kept[:30])
    result = run_command(by_ranks(lesson, shared, 2))
    assert result.returncode == 0, result.stderr[-3000:]
    assert "34 answers (6 were there)" in result.stderr
    after = shared.read_bytes().splitlines(keepends=True)
    assert without_ids([json.loads(line) for line in after]) == without_ids(single)
    assert (after[:5], after[20]) == (lines[:5], lines[20]), "finished lines stay as they are"
    assert {file.name for file in tmp_path.glob("shared*")} == {"shared.jsonl", "shared.jsonl.run.json"}


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_rank_ends_the_run_and_costs_a_batch(rank: int, lesson: Path, tmp_path: Path) -> None:
    """torchrun ends with an error, the parts stay, and another number of ranks goes on from them."""
    single = answer(lesson, tmp_path / "single.jsonl")
    shared = tmp_path / "shared.jsonl"
    part = tmp_path / f"shared.jsonl.part-{rank}-of-2"
    command = by_ranks(lesson, shared, 2, "--batch-size", "1")
    environment = script_environment({})
    with subprocess.Popen(command, cwd=ROOT, env=environment, stderr=subprocess.DEVNULL) as run:
        wait_for(lambda: part.exists() and part.stat().st_size > 0)
        owner = json.loads(Path(f"{part}.lock").read_text(encoding="utf-8"))
        os.kill(owner["pid"], signal.SIGKILL)
        assert run.wait(60) != 0
    assert shared.read_bytes() == b"", "nothing is merged"
    done = sum(file.read_bytes().count(b"\n") for file in tmp_path.glob("shared.jsonl.part-?-of-2"))
    result = run_command(by_ranks(lesson, shared, 3))
    assert result.returncode == 0, result.stderr[-3000:]
    assert f"34 answers ({done} were there)" in result.stderr
    found = [json.loads(line) for line in shared.read_text(encoding="utf-8").splitlines()]
    assert without_ids(found) == without_ids(single)


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds, at most two minutes."""
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


FAKE = """#!/usr/bin/env bash
case "$*" in *merge_answers*) exec {python} "$@" ;; esac
while [ "$#" -gt 0 ]; do
    case $1 in --answers-file) out=$2 ;; --chunk-idx) part=$2 ;; esac
    shift
done
codes=($CODES)
echo "{{}}" | tee "$out" >"$out.run.json"
exit "${{codes[$part]}}"
"""


@pytest.mark.parametrize(
    ("codes", "code", "merged"),
    [("0 0 0", 0, True), ("0 3 0", 3, True), ("0 3 1", 1, False), ("137 0 0", 1, False), ("0 2 0", 2, False)],
)
def test_scripts_say_when_a_part_has_gaps_or_failed(
    codes: str, code: int, merged: bool, tmp_path: Path
) -> None:
    """The parts' program is replaced by one that writes a line and ends with its part's code."""
    fake, answers = tmp_path / "python", tmp_path / "a.jsonl"
    fake.write_text(FAKE.format(python=sys.executable), encoding="utf-8")
    fake.chmod(0o755)
    script = f"""set -euo pipefail; MODEL_PATH=m; GPU_LIST=0,1,2; PYTHON={fake}
        source scripts/common/benchmark.sh; answer model_vqa_loader q {answers}; echo scored"""
    result = run_command(["bash", "-c", script], CODES=codes)
    assert (result.returncode, answers.exists()) == (code, merged)
    assert ("scored" in result.stdout) == (code == 0)
    assert ("(exit code" in result.stderr) == (not merged)
