"""Every command on the page about scores runs, on golden inputs under the names of the page."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.parity.golden import DATA

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "scoring.md").read_text(encoding="utf-8")
COMMANDS = [
    line
    for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]
PROGRAMS = re.findall(r"^\| [^|]+ \| `([^`]+)` \|", PAGE, re.MULTILINE)
PRINTING = ("llava.eval.", "llava/eval/", "seed", "summarize", "vqav2", "vizwiz", "sqa_to")
SCORES_ONLY = ("eval_pope", "eval_textvqa", "eval_gqa", "eval_vqa", "summarize")
PETS = ("dog", "cat")


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A folder with the programs and the golden inputs."""
    shutil.copytree(DATA / "metrics", tmp_path, dirs_exist_ok=True)
    merged = tmp_path / "vqav2" / "answers" / "test-dev2015" / "mine" / "merge.jsonl"
    merged.parent.mkdir(parents=True)
    (tmp_path / "vqav2" / "merge.jsonl").rename(merged)
    write_others(tmp_path)
    for name in ("llava", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def write_others(folder: Path) -> None:
    """Inputs of the scores that the original does not have."""
    texts = [json.loads(line) for line in (folder / "gqa/answers.jsonl").read_text().splitlines()]
    types = {"structural": "query", "semantic": "attr"}
    questions = {row["question_id"]: {"imageId": "1", "answer": "yes", "types": types} for row in texts}
    (folder / "gqa/questions.json").write_text(json.dumps(questions))
    task = folder / "mme/MME_Benchmark_release_version/existence"
    task.mkdir(parents=True)
    (task / "1.txt").write_text("Is it a dog?\tYes\nIs it a cat?\tNo\n")
    rows = [{"question_id": "existence/1.jpg", "prompt": f"Is it a {pet}?", "text": "Yes"} for pet in PETS]
    (folder / "mme/answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    people = [{"answer": pet} for pet in PETS * 5]
    annotation = {"question_id": 1, "image_id": 2, "answer_type": "other", "answers": people}
    (folder / "vqav2/annotations.json").write_text(json.dumps({"annotations": [annotation]}))
    (folder / "vqav2/questions.json").write_text(json.dumps({"questions": [{"question_id": 1}]}))
    (folder / "vqav2/val_answers.jsonl").write_text(json.dumps({"question_id": 1, "text": "dog"}) + "\n")


def test_every_program_of_the_table_has_a_command() -> None:
    assert len(PROGRAMS) == 13
    for program in PROGRAMS:
        assert sum(f" {program} " in command for command in COMMANDS) == 1, program


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: Path(command.split(" --")[0]).name)
def test_commands_run(command: str, desk: Path) -> None:
    before = {file for file in desk.rglob("*") if file.is_file()}
    paths = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    known = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    result = subprocess.run(
        ["bash", "-c", command],
        cwd=desk,
        env=os.environ | {"PATH": paths, "PYTHONPATH": os.pathsep.join(known)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert bool(result.stdout) == any(name in command for name in PRINTING)
    written = {file for file in desk.rglob("*") if file.is_file()} - before
    scores_only = any(name in command for name in SCORES_ONLY)
    assert bool(written) != scores_only
