"""A checkpoint folder is a model: it opens by its path, also for asking, and moves with its base."""

import json
import shutil
import sys
from pathlib import Path

import pytest

from llava.eval import model_vqa
from llava.model.builder import load_pretrained_model
from tests.faults.trainings import Trainings


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_checkpoint_opens_by_its_path(
    kind: str, trainings: Trainings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = trainings.place(f"open {kind}")
    trainings.run(folder, kind).ended_well()
    last, result = folder / "checkpoint-8", folder
    states = [load_pretrained_model(str(place), None)[1].state_dict() for place in (last, result)]
    earlier = load_pretrained_model(str(folder / "checkpoint-6"), None)[1].state_dict()
    assert states[0].keys() == states[1].keys() == earlier.keys()
    assert all(value.equal(states[1][name]) for name, value in states[0].items())
    assert not all(value.equal(earlier[name]) for name, value in states[0].items())
    questions, answers = trainings.folder / "questions.jsonl", trainings.folder / f"answers {kind}.jsonl"
    row = {"question_id": 1, "image": "1.png", "text": "What is 1?"}
    questions.write_text(json.dumps(row) + "\n")
    argv = [
        *("--model-path", str(last)),
        *("--question-file", str(questions)),
        *("--image-folder", str(trainings.folder / "images")),
        *("--answers-file", str(answers)),
        *("--max_new_tokens", "3"),
    ]
    monkeypatch.setattr(sys, "argv", ["model_vqa", *argv])
    model_vqa.main()
    assert json.loads(answers.read_text())["question_id"] == 1


def test_adapters_name_their_base_from_where_they_lie(trainings: Trainings, tmp_path: Path) -> None:
    """Not from where they were written: a whole project may be moved."""
    folder = trainings.place("relative")
    trainings.run(folder, "lora").ended_well()
    shutil.copytree(trainings.folder / "base", tmp_path / "base")
    shutil.copytree(folder, tmp_path / "runs" / "relative")
    for place in ("relative", "relative/checkpoint-6"):
        adapter = tmp_path / "runs" / place
        reference = json.loads((adapter / "base_model.json").read_text())
        assert (adapter / reference["relative_path"]).resolve() == tmp_path / "base"
        assert (folder.parent / place / reference["relative_path"]).resolve() == trainings.folder / "base"
