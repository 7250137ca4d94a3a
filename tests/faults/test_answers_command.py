"""The real command with a real model, killed in the middle of a write, and given once more."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

from llava.eval import engine as engine_module
from llava.eval import model_vqa_loader
from tests.faults.conftest import SURVIVED, FaultLog
from tests.faults.quick_answers import KILLED, whole_lines
from tests.parity.golden import DATA

ROOT = Path(__file__).resolve().parents[2]
MODELS = DATA / "models"
COUNT, BATCH = 60, 4
DRIVER = """
import os, signal, sys
left, sync = int(sys.argv.pop(1)), os.fsync
def last(handle):
    global left
    left -= 1
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    sync(handle)
os.fsync = last
from llava.eval.model_vqa_loader import main
main()
"""


def arguments(folder: Path, name: str) -> list[str]:
    """The command's flags."""
    return [
        "--model-path", str(MODELS / "llava-v1.5-tiny"), "--question-file", str(folder / "questions.jsonl"),
        "--image-folder", str(DATA / "images"), "--answers-file", str(folder / name),
        "--max_new_tokens", "6", "--batch-size", str(BATCH), "--no-early-stop",
    ]  # fmt: skip


def read(path: Path) -> list[dict]:
    """The answers without their random ids."""
    rows = [json.loads(line) for line in whole_lines(path)]
    return [{key: value for key, value in row.items() if key != "answer_id"} for row in rows]


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 9))])
def test_killed_in_the_middle_of_a_write(
    seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault_log: FaultLog
) -> None:
    """At its n-th fsync: what it wrote just before is on the disk or not, in parts or whole."""
    names = sorted(file.name for file in (DATA / "images").glob("*.png"))[:7]
    rows = [
        {"question_id": number, "image": names[number % 7], "text": "Who? " * (number % 5) + f"No. {number}?"}
        for number in range(COUNT)
    ]
    (tmp_path / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(MODELS)
    syncs: list[int] = []
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", syncs.append)
        model_vqa_loader.main(arguments(tmp_path, "whole.jsonl"))
    at = random.Random(seed).randrange(3, len(syncs)) + 1  # the first ones write what stands beside the file
    command = [sys.executable, "-c", DRIVER, str(at), *arguments(tmp_path, "a.jsonl")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    killed = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=200)
    assert killed.returncode == KILLED, killed.stderr.decode()[-2000:]
    before = whole_lines(tmp_path / "a.jsonl")
    part = tmp_path / "a.jsonl.part"
    waiting = {json.loads(line)["index"] for line in whole_lines(part)} - set(range(len(before)))
    assert before or waiting, "it must be hit after its beginning"
    decoded = []
    decode = engine_module.decode
    monkeypatch.setattr(
        engine_module, "decode", lambda model, rows, *rest, **more: decoded.extend(rows.answers) or
        decode(model, rows, *rest, **more)
    )  # fmt: skip
    model_vqa_loader.main(arguments(tmp_path, "a.jsonl"))
    assert read(tmp_path / "a.jsonl") == read(tmp_path / "whole.jsonl")
    assert whole_lines(tmp_path / "a.jsonl")[: len(before)] == before
    asked = {id(one) for one in decoded}
    assert len(asked) == COUNT - len(before) - len(waiting), "only what was not written"
    assert not part.exists()
    happened = f"{COUNT} answers equal, {len(before)} + {len(waiting)} of them kept"
    fault_log("E1 kill -9 of the real command", happened, SURVIVED)
