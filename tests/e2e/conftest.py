"""A small data set as a user would bring it, and a way to run the real scripts."""

import json
import os
import random
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from playground.mini_world.draw import draw_scene
from playground.mini_world.files import conversation_row, question_row, save_picture, write_json, write_lines
from playground.mini_world.questions import Phrasing, scene_questions
from playground.mini_world.world import sample_scene

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "playground" / "mini_world" / "base"
NUM_PICTURES = 8
PER_PICTURE = 4


def script_environment(variables: Mapping[str, object]) -> dict[str, str]:
    """This process's environment with a script's variables, offline, one thread."""
    fixed = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    paths = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    return {**os.environ, **fixed, **paths, **{name: str(value) for name, value in variables.items()}}


def run_command(command: Sequence[str], **variables: object) -> subprocess.CompletedProcess:
    """Run a command in the repository to its end."""
    return subprocess.run(
        command,
        cwd=ROOT,
        env=script_environment(variables),
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )


def run_script(script: str, *flags: str, **variables: object) -> subprocess.CompletedProcess:
    """Run a bash script of the repository to its end."""
    return run_command(["bash", script, *flags], **variables)


def run_module(module: str, *flags: str) -> subprocess.CompletedProcess:
    """Run `python -m module` to its end."""
    return run_command([sys.executable, "-m", module, *flags])


def losses(output_dir: Path) -> list[float]:
    """The logged losses of a finished run."""
    state = json.loads((output_dir / "trainer_state.json").read_text(encoding="utf-8"))
    return [row["loss"] for row in state["log_history"] if "loss" in row]


@pytest.fixture(scope="session")
def lesson(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images/, train.json (pictures and text) and questions.jsonl."""
    folder = tmp_path_factory.mktemp("lesson")
    rng = random.Random("lesson")
    phrasing = Phrasing("train", rng)
    rows, questions = [], []
    for number in range(NUM_PICTURES):
        scene = sample_scene(rng)
        name = f"{number}.png"
        save_picture(draw_scene(scene), folder / "images" / name)
        for k, qa in enumerate(scene_questions(scene, phrasing, PER_PICTURE)):
            rows.append(conversation_row(f"{number}_{k}", qa, name))
            questions.append(question_row(f"q{number}_{k}", qa.text, qa.kind, name))
    for number, (text, answer) in enumerate(
        (("What is one plus two?", "three"), ("Add two and two.", "four"))
    ):
        rows.append(
            {
                "id": f"text_{number}",
                "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": answer}],
            }
        )
        questions.append({"question_id": f"text_{number}", "text": text, "category": "text"})
    write_json(rows, folder / "train.json")
    write_lines(questions, folder / "questions.jsonl")
    return folder


def training_variables(lesson: Path, output_dir: Path) -> dict[str, object]:
    """What a user sets for a short run on the lesson."""
    return {
        "MODEL_PATH": BASE,
        "DATA_PATH": lesson / "train.json",
        "IMAGE_FOLDER": lesson / "images",
        "OUTPUT_DIR": output_dir,
        "BATCH_SIZE": 8,
    }
