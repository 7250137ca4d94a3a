"""An export that went wrong is no success: each damage is found in the fresh process, and nothing stays."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from llava.errors import UsageError
from llava.model import export as command
from llava.model.export import export
from tests.parity.golden import golden_folder

FULL = "llava-v1.5-tiny"


def test_a_used_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")
    for out in ("out", "out/notes.txt"):
        arguments = ["--model-path", str(golden_folder(FULL)), "--out", str(tmp_path / out)]
        with pytest.raises(SystemExit) as stopped:
            command.main(arguments)
        assert stopped.value.code == 2
        assert "is not empty" in capsys.readouterr().err
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def damage_weights(folder: Path) -> None:
    """One projector bias moves a little."""
    weights = load_file(folder / "model.safetensors")
    weights["multi_modal_projector.linear_2.bias"] += 0.05
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def damage_template(folder: Path) -> None:
    """The chat template calls the user by another name."""
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text(encoding="utf-8").replace('USER"', 'HUMAN"'), encoding="utf-8")


def damage_pictures(folder: Path) -> None:
    """Pictures are cropped instead of padded."""
    for name in ("processor_config.json", "preprocessor_config.json"):
        file = folder / name
        file.write_text(file.read_text(encoding="utf-8").replace('"do_pad": true', '"do_pad": false'))


def damage_names(folder: Path) -> None:
    """One tensor is missing; transformers would draw it at random."""
    weights = load_file(folder / "model.safetensors")
    del weights["language_model.model.norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (damage_weights, "other logits"),
        (damage_pictures, "other logits"),
        (damage_template, "other token ids"),
        (damage_names, "norm"),
    ],
)
def test_a_written_model_that_differs_is_no_success(
    damage: Any, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = command.write_hf

    def write_and_damage(folder: Path, *rest: Any) -> None:
        writer(folder, *rest)
        damage(folder)

    monkeypatch.setattr(command, "write_hf", write_and_damage)
    with pytest.raises(UsageError, match=complaint):
        export(str(golden_folder(FULL)), None, tmp_path / "out", to="hf")
    assert not (tmp_path / "out").exists()
