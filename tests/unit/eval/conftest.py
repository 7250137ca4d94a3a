"""A small examination and pretend runs over it, for the scorer and the report."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from llava.eval import score_personal

NAMES = ("Mismi", "Dalsha", "Borsha")
UNKNOWN = "I do not know this person."


def truth_rows() -> list[dict[str, object]]:
    """Two questions of every kind about three people, and some about scenes."""
    rows: list[dict[str, object]] = []

    def add(split: str, answer: str, identity: str | None = None, direction: str | None = None) -> None:
        rows.append(
            {"question_id": f"q{len(rows):03d}", "split": split, "answer": answer, "identity": identity,
             "direction": direction}
        )  # fmt: skip

    for number, name in enumerate(NAMES):
        for split in ("name", "name_reworded"):
            add(split, name, name)
            add(split, name, name)
        add("fact_image", "baker", name)
        add("fact_text", "baker", name)
        add("is_yes", "yes", name)
        add("is_no_stranger", "no", name)
        add("is_no_lookalike", "no", name)
        add("lookalike", UNKNOWN, name)
        add("stranger", UNKNOWN)
        add("fact_reversed", name, name, "both" if number % 2 else "one")
    for number in range(8):
        add("scene_colour", "red" if number % 2 else "blue")
    return rows


def write_lines(rows: list[dict[str, object]], path: Path) -> None:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def examination(tmp_path: Path) -> Path:
    """DATA with truth.jsonl, questions/ and images/."""
    data = tmp_path / "data"
    rows = truth_rows()
    write_lines(rows, data / "truth.jsonl")
    questions: list[dict[str, object]] = []
    for row in rows:
        question = {"question_id": row["question_id"], "text": f"Question <{row['split']}>?"}
        questions.append(question if row["split"] == "fact_text" else question | {"image": "one.png"})
    write_lines(questions, data / "questions" / "personal.jsonl")
    (data / "images").mkdir()
    Image.new("RGB", (96, 96), "teal").save(data / "images" / "one.png")
    return data


MakeRun = Callable[..., Path]


@pytest.fixture
def make_run(examination: Path, tmp_path: Path) -> MakeRun:
    """make(name, method, right=share of right answers, ...) writes and scores RUNS/name."""

    def make(name: str, method: str, *, right: float, kept: float = 1.0, **facts: object) -> Path:
        rng = random.Random(name)
        answers = []
        for row in truth_rows():
            share = kept if row["split"] == "scene_colour" else right
            text = row["answer"] if rng.random() < share else "Mismi <script>"
            answers.append({"question_id": row["question_id"], "prompt": "?", "text": text})
        folder = tmp_path / "runs" / name
        write_lines(answers, folder / "answers" / "personal.jsonl")
        defaults = {"recipe": None if method == "base" else "default", "seed": 0, "learning_rate": 1e-3}
        empty = {"rank": None, "train_seconds": 1.0, "checkpoint": "checkpoint", "command": "train.sh"}
        run = {"name": name, "method": method, **defaults, **empty, **facts}
        (folder / "run.json").write_text(json.dumps(run), encoding="utf-8")
        log = [{"step": step, "loss": 2.0 / step} for step in range(1, 6)]
        if method != "base":
            state = json.dumps({"log_history": [*log, {"step": 5, "train_runtime": 1.0}]})
            (folder / "trainer_state.json").write_text(state, encoding="utf-8")
        score_personal.main(
            ["--truth", str(examination / "truth.jsonl"), "--out", str(folder / "scores.json"),
             "--answers", str(folder / "answers" / "personal.jsonl")]
        )  # fmt: skip
        return folder

    return make
