"""What training starts from, and what its first stage leaves: a projector that opens on its base."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import PROJECTOR_NAME
from tests.parity.golden import DATA, golden_folder
from tests.parity.training import run_training, working_folder
from tests.unit.train.test_picture_tokens import PLAIN, train

BASE = str(golden_folder("tiny-vicuna-v1.5"))
IDS = torch.tensor([[1, 292, -200, 638, 592]])
PIXELS = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, which the golden paths are relative to."""
    (tmp_path / "models").mkdir()
    folder = working_folder(tmp_path / "models")
    monkeypatch.chdir(folder)
    return folder


def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of one picture between words."""
    with torch.no_grad():
        return model(input_ids=IDS, images=PIXELS).logits


def test_a_projector_opens_on_its_language_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The twin is a second stage that changes nothing: all weights in one folder."""
    first = train(tmp_path / "first", monkeypatch, *PLAIN, "--tune_mm_mlp_adapter", "True")
    with pytest.raises(UsageError, match=r"holds only a projector.*--model-base"):
        load_pretrained_model(str(first.folder))
    _, opened, _, _ = load_pretrained_model(str(first.folder), BASE)
    flags = ("--pretrain_mm_mlp_adapter", str(first.folder / PROJECTOR_NAME), "--learning_rate", "0")
    second = train(tmp_path / "second", monkeypatch, *PLAIN, *flags)
    _, twin, _, _ = load_pretrained_model(str(second.folder))
    assert torch.equal(logits(opened), logits(twin))
    _, on_llava, _, _ = load_pretrained_model(str(first.folder), str(second.folder))
    assert torch.equal(logits(on_llava), logits(twin)), "a whole LLaVA may be the base"
    config = json.loads((first.folder / "config.json").read_text(encoding="utf-8"))
    (first.folder / "config.json").write_text(
        json.dumps(config | {"mm_vision_tower": None}), encoding="utf-8"
    )
    with pytest.raises(UsageError, match="mm_vision_tower"):
        load_pretrained_model(str(first.folder), BASE)


def test_input_embeddings_that_trained_beside_it_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = ("--tune_mm_mlp_adapter", "True", "--mm_use_im_start_end", "True")
    first = train(tmp_path / "first", monkeypatch, *PLAIN, *tokens)
    tokenizer, model, _, _ = load_pretrained_model(str(first.folder), BASE)
    stored = read_tensors(first.folder / PROJECTOR_NAME)["model.embed_tokens.weight"]
    assert torch.equal(model.get_input_embeddings().weight, stored)
    head = model.lm_head.weight
    assert len(head) == len(stored) == len(tokenizer) == 1002
    torch.testing.assert_close(head[1000:], head[:1000].mean(0).expand(2, -1), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_aspect_ratio": "anyres", "image_grid_pinpoints": [[56, 112]]},
        {"mm_patch_merge_type": "spatial_unpad"},
    ],
    ids=["anyres", "newline"],
)
def test_training_on_tiles_is_refused(
    changes: dict, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original trains such a checkpoint on squares, and says tiles in the result."""
    from safetensors.torch import load_file, save_file

    tiled = Path(shutil.copytree(DATA / "models" / "llava-v1.5-tiny", models / "tiled"))
    config = json.loads((tiled / "config.json").read_text(encoding="utf-8"))
    (tiled / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    if "mm_patch_merge_type" in changes:
        file = tiled / "model.safetensors"
        save_file(load_file(file) | {"model.image_newline": torch.zeros(64)}, file)
    flags = ["--model_name_or_path", "tiled", "--data_path", "data/traj8.json", "--image_folder", "data"]
    with pytest.raises(UsageError, match="training on tiles is not there"):
        run_training([*flags, "--use_cpu", "True", "--report_to", "none"], tmp_path / "out", monkeypatch)
