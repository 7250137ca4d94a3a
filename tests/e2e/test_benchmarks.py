"""Every benchmark's script on a small folder of its own layout, with the mini world's base: from the question
file to the score or the file for a server. The first run of all of them is killed, the same command goes on.
"""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.benchmark_data import FOLDERS, make_benchmarks, make_mmbench
from tests.e2e.conftest import BASE, ROOT, run_command, run_module, run_script, script_environment
from tests.e2e.test_evaluation import wait_for
from tests.unit.eval.chat_server import ChatServer, Reply, completion, serving

SCRIPTS = "scripts/v1.5/eval"
ANSWERS = {
    "vqav2": "vqav2/answers/llava_vqav2_mscoco_test-dev2015/base/merge.jsonl",
    "gqa": "gqa/answers/llava_gqa_testdev_balanced/base/merge.jsonl",
    "vizwiz": "vizwiz/answers/test/base/merge.jsonl",
    "sqa": "scienceqa/answers/base/merge.jsonl",
    "textvqa": "textvqa/answers/base/merge.jsonl",
    "pope": "pope/answers/base/merge.jsonl",
    "mme": "MME/answers/base/merge.jsonl",
    "mmbench": "mmbench/answers/mmbench_dev_20230712/base/base.jsonl",
    "mmbench_cn": "mmbench_cn/answers/mmbench_dev_cn_20231003/base/base.jsonl",
    "seed": "seed_bench/answers/base/merge.jsonl",
    "llavabench": "llava-bench-in-the-wild/answers/base/merge.jsonl",
    "mmvet": "mm-vet/answers/base/merge.jsonl",
    "qbench": "qbench/answers/dev/base/merge.jsonl",
    "qbench_zh": "qbench/answers/zh_dev/base/merge.jsonl",
}
NUM_ANSWERS = {"gqa": 12, "pope": 24, "mme": 28, "llavabench": 9}
"""The others have four."""
WRITTEN = {
    "vqav2": "vqav2/answers_upload/llava_vqav2_mscoco_test-dev2015/base.json",
    "gqa": "gqa/answers/llava_gqa_testdev_balanced/base/testdev_balanced_predictions.json",
    "vizwiz": "vizwiz/answers_upload/base.json",
    "sqa": "scienceqa/answers/base/base_result.json",
    "mme": "MME/eval_tool/answers/base/existence.txt",
    "mmbench": "mmbench/answers_upload/mmbench_dev_20230712/base.xlsx",
    "mmbench_cn": "mmbench_cn/answers_upload/mmbench_dev_cn_20231003/base.xlsx",
    "seed": "seed_bench/answers_upload/base.jsonl",
    "llavabench": "llava-bench-in-the-wild/reviews/base.jsonl",
    "mmvet": "mm-vet/results/base.json",
    "qbench": "qbench/answers_upload/dev/base.jsonl",
    "qbench_zh": "qbench/answers_upload/zh_dev/base.jsonl",
}
"""What a server or another program takes."""
SHORT = {"MAX_NEW_TOKENS": 32}
UNSCORED = ("vqav2", "vizwiz")
"""Their default split is scored by a server."""
NAMES = {"sqa": "scienceqa"}
"""Benchmarks that the results call otherwise than the script."""


def judge(request: dict, before: int) -> Reply:
    """Two scores for a pair of answers, one for an answer."""
    asked = " ".join(str(message["content"]) for message in request["messages"])
    return completion("8 6\nThe first is better." if "Assistant 2" in asked else "0.5")


@dataclass
class Shelf:
    """A folder of all benchmarks, answered: what all.sh said, what the killed run had left."""

    folder: Path
    said: subprocess.CompletedProcess
    before: dict[str, list[bytes]]
    judged: ChatServer

    def lines(self, script: str) -> list[bytes]:
        """The lines of a benchmark's answers."""
        return (self.folder / ANSWERS[script]).read_bytes().splitlines(keepends=True)


def said(lines: Sequence[str | bytes]) -> list[tuple[object, object]]:
    """Ids and texts of answers."""
    return [(row["question_id"], row["text"]) for row in map(json.loads, lines)]


def kill_when(lines: int, file: Path, folder: Path) -> None:
    """Start all.sh, and kill all of its processes once the file has so many lines."""
    environment = script_environment({"MODEL_PATH": BASE, "EVAL_DIR": folder, "BATCH_SIZE": 1, **SHORT})
    command = ["bash", f"{SCRIPTS}/all.sh"]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
    ) as run:
        end = time.monotonic() + 120
        while not (file.exists() and file.read_bytes().count(b"\n") >= lines):
            assert run.poll() is None, "all.sh ended before it could be killed"
            assert time.monotonic() < end, "waited too long"
            time.sleep(0.005)
        os.killpg(run.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """All benchmarks, killed in the second one and run to the end."""
    folder = tmp_path_factory.mktemp("eval")
    make_benchmarks(folder)
    kill_when(3, folder / ANSWERS["gqa"], folder)
    before = {
        name: (folder / ANSWERS[name]).read_bytes().splitlines(keepends=True) for name in ("vqav2", "gqa")
    }
    with serving(ChatServer(reply=judge)) as server:
        said = run_script(
            f"{SCRIPTS}/all.sh", MODEL_PATH=BASE, EVAL_DIR=folder, OPENAI_BASE_URL=server.url,
            OPENAI_API_KEY="secret-of-the-judge", **SHORT,
        )  # fmt: skip
        yield Shelf(folder, said, before, server)


def test_all_benchmarks_run(shelf: Shelf) -> None:
    assert shelf.said.returncode == 0, shelf.said.stderr[-3000:]
    assert "failed" not in shelf.said.stderr
    assert "no data" not in shelf.said.stdout
    assert "secret-of-the-judge" not in shelf.said.stdout + shelf.said.stderr
    assert set(shelf.judged.keys) == {"Bearer secret-of-the-judge"}


def test_what_was_answered_before_the_kill_is_kept(shelf: Shelf) -> None:
    assert len(shelf.before["vqav2"]) == 4
    assert 3 <= len(shelf.before["gqa"]) < 12, "killed within a benchmark"
    for name, lines in shelf.before.items():
        whole = [line for line in lines if line.endswith(b"\n")]
        assert shelf.lines(name)[: len(whole)] == whole


@pytest.mark.parametrize("script", list(FOLDERS))
def test_from_question_file_to_score(script: str, shelf: Shelf) -> None:
    rows = [json.loads(line) for line in shelf.lines(script)]
    assert len(rows) == NUM_ANSWERS.get(script, 4)
    assert {row["model_id"] for row in rows} == {"base"}
    if script in WRITTEN:
        assert (shelf.folder / WRITTEN[script]).stat().st_size > 0
    results = (shelf.folder / ANSWERS[script]).with_name("results.json")
    if script in UNSCORED:
        assert not results.exists()
        return
    found = json.loads(results.read_text(encoding="utf-8"))
    assert found["benchmark"] == NAMES.get(script, script)
    assert found["headline"] in found["figures"]
    assert found["questions"]["missing"] == 0
    assert found["run"]["model_id"] == "base"
    assert "{question}" in found["prompt"]
    scored = results.with_name("scored.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(scored) == found["questions"]["asked"]


def test_the_table_has_every_score(shelf: Shelf) -> None:
    result = run_module("llava.eval.collect", str(shelf.folder), "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    wanted = [NAMES.get(name, name) for name in FOLDERS if name not in UNSCORED]
    assert [row["benchmark"] for row in rows] == wanted
    table = shelf.said.stdout.partition("== scores")[2]
    assert all(f"\n{name} " in table for name in wanted)


def test_the_base_answers_what_it_knows(shelf: Shelf) -> None:
    file = shelf.folder / "pope/answers/base/results.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    assert found["figures"][found["headline"]]["value"] > 60


@pytest.mark.parametrize("script", ["vqav2", "vizwiz"])
def test_validation_splits_are_scored(script: str, shelf: Shelf) -> None:
    split = {"vqav2": "llava_vqav2_mscoco_val2014", "vizwiz": "val"}[script]
    result = run_script(f"{SCRIPTS}/{script}.sh", MODEL_PATH=BASE, EVAL_DIR=shelf.folder, SPLIT=split)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Evidence: n=" in result.stdout
    assert (shelf.folder / script / "answers" / split / "base" / "results.json").exists()


def test_several_processes_give_the_answers_of_one(shelf: Shelf) -> None:
    """And a checkpoint of another name has a folder of its own."""
    result = run_script(
        f"{SCRIPTS}/gqa.sh", MODEL_PATH=BASE, EVAL_DIR=shelf.folder, GPU_LIST="0,1", CKPT="two",
        **SHORT,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    two = (shelf.folder / ANSWERS["gqa"].replace("/base/", "/two/")).read_text(encoding="utf-8")
    assert said(two.splitlines()) == said(shelf.lines("gqa"))
    folder = shelf.folder / "gqa/answers/llava_gqa_testdev_balanced"
    result = run_module("llava.eval.compare", str(folder / "base"), str(folder / "two"))
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].split()[-1] == "1", "McNemar's p of equal answers"


def test_all_orders_of_options(shelf: Shelf, tmp_path: Path) -> None:
    make_mmbench(tmp_path / "mmbench")
    result = run_script(f"{SCRIPTS}/mmbench.sh", MODEL_PATH=BASE, EVAL_DIR=tmp_path, ALL_ROUNDS=1)
    assert result.returncode == 0, result.stderr[-3000:]
    found = json.loads((tmp_path / ANSWERS["mmbench"]).with_name("results.json").read_text(encoding="utf-8"))
    assert found["headline"] == "circular_accuracy"


def test_a_table_without_answers_is_only_converted(tmp_path: Path) -> None:
    make_mmbench(tmp_path / "mmbench", "mmbench_test", answers=False)
    result = run_script(f"{SCRIPTS}/mmbench.sh", MODEL_PATH=BASE, EVAL_DIR=tmp_path, SPLIT="mmbench_test")
    assert result.returncode == 0, result.stderr[-3000:]
    assert "its server scores" in result.stdout
    assert (tmp_path / "mmbench/answers_upload/mmbench_test/base.xlsx").exists()


def test_without_a_judge_the_answers_are_written(shelf: Shelf) -> None:
    shutil.rmtree(shelf.folder / "mm-vet" / "results")
    result = run_script(
        f"{SCRIPTS}/mmvet.sh", MODEL_PATH=BASE, EVAL_DIR=shelf.folder, **SHORT, OPENAI_API_KEY="",
        OPENAI_BASE_URL="",
    )  # fmt: skip
    assert result.returncode == 3, result.stderr
    assert "answered, not judged" in result.stderr
    assert (shelf.folder / WRITTEN["mmvet"]).exists()


def test_a_stopped_script_leaves_nothing_running(shelf: Shelf) -> None:
    """The signal goes to the script alone, as from a job scheduler."""
    answers = shelf.folder / ANSWERS["gqa"].replace("/base/", "/stopped/")
    variables = {"MODEL_PATH": BASE, "EVAL_DIR": shelf.folder, "CKPT": "stopped", "BATCH_SIZE": 1}
    with subprocess.Popen(
        ["bash", f"{SCRIPTS}/gqa.sh"], cwd=ROOT, env=script_environment(variables), stderr=subprocess.PIPE
    ) as run:
        wait_for(lambda: answers.exists() and answers.stat().st_size > 0)
        owner = json.loads(Path(f"{answers}.lock").read_text(encoding="utf-8"))["pid"]
        run.terminate()
        assert b"the same command goes on from there" in run.communicate()[1]
    assert run.returncode == 143
    with pytest.raises(ProcessLookupError):
        os.kill(owner, 0)


BREAKING = """#!/usr/bin/env bash
case "$*" in *"--chunk-idx 1"*) exit 137 ;; esac
exec {python} "$@"
"""


def test_a_shard_that_fails_fails_the_script(shelf: Shelf, tmp_path: Path) -> None:
    breaking = tmp_path / "python"
    breaking.write_text(BREAKING.format(python=sys.executable), encoding="utf-8")
    breaking.chmod(0o755)
    variables = {"MODEL_PATH": BASE, "EVAL_DIR": shelf.folder, "CKPT": "broken", "GPU_LIST": "0,1"}
    result = run_script(f"{SCRIPTS}/vizwiz.sh", PYTHON=breaking, **variables)
    assert result.returncode == 1
    assert "part 1 of" in result.stderr
    assert "(exit code 137)" in result.stderr
    answers = shelf.folder / ANSWERS["vizwiz"].replace("/base/", "/broken/")
    assert not answers.exists(), "nothing is merged"
    assert not (shelf.folder / "vizwiz/answers_upload/broken.json").exists(), "nor converted"
    first = Path(f"{answers}.2_0").read_bytes()
    assert run_script(f"{SCRIPTS}/vizwiz.sh", **variables).returncode == 0
    assert answers.read_bytes().startswith(first), "the other part is not asked again"


@pytest.mark.parametrize("script", list(FOLDERS))
def test_missing_data_are_named(script: str, tmp_path: Path) -> None:
    result = run_script(f"{SCRIPTS}/{script}.sh", EVAL_DIR=tmp_path)
    assert result.returncode == 4
    assert f"missing: {tmp_path / FOLDERS[script][0]}" in result.stderr
    assert "docs/evaluation.md" in result.stderr


def test_one_that_fails_does_not_stop_the_others(tmp_path: Path) -> None:
    make_benchmarks(tmp_path, ["pope", "vizwiz"])
    (tmp_path / "pope" / "llava_pope_test.jsonl").write_text("nothing\n", encoding="utf-8")
    result = run_script(f"{SCRIPTS}/all.sh", MODEL_PATH=BASE, EVAL_DIR=tmp_path, BENCHMARKS="pope gqa vizwiz")
    assert result.returncode == 1
    assert result.stderr.endswith("failed: pope (exit code 2)\n")
    assert "no data: gqa" in result.stdout
    assert "VizWiz' server" in result.stdout
    empty = run_script(f"{SCRIPTS}/all.sh", EVAL_DIR=tmp_path / "none", BENCHMARKS="pope gqa")
    assert empty.returncode == 4


def test_every_benchmark_of_the_page_has_a_script() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name, (folder, _) in FOLDERS.items():
        assert f"| `{name}.sh` | `{folder}/` |" in page
        assert page.count(f"| `{name}.sh` |") == 2, "where its data come from, and what its score is"
    scripts = {file.stem for file in (ROOT / SCRIPTS).glob("*.sh")}
    assert scripts == {*FOLDERS, "all", "personal", "retention"}


@pytest.mark.parametrize(
    ("path", "name"),
    [("a/llava-v1.5-7b/", "llava-v1.5-7b"), ("runs/mine/checkpoint-500", "mine_checkpoint-500")],
)
def test_answers_are_filed_under_the_checkpoint(path: str, name: str) -> None:
    script = "set -euo pipefail; source scripts/common/benchmark.sh; echo $CKPT"
    assert run_command(["bash", "-c", script], MODEL_PATH=path).stdout == f"{name}\n"
