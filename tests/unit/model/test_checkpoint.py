"""Checkpoints: names map two ways, loading is strict, a LoRA opens by its path wherever it lies, hashes are
checked.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from llava.errors import UsageError
from llava.model.builder import load_full, load_pretrained_model
from llava.model.checkpoint import read_projector, write_projector
from llava.model.key_names import OURS, original_projector_key, projector_key
from llava.model.lora import LoraSettings, add_lora
from llava.model.weight_files import ADAPTER_WEIGHTS_NAME
from llava.train.saving import CheckpointWriter
from tests.parity.golden import golden_tokenizer
from tests.tiny import picture, tiny_model


def writer(kind: str, base: Path | None = None) -> CheckpointWriter:
    """A writer with a real tokenizer and image processor."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size={"height": 8, "width": 8})
    return CheckpointWriter(kind, golden_tokenizer("nonlegacy"), processor, base)


def logits(model: torch.nn.Module) -> torch.Tensor:
    """What a model says to a fixed prompt with a picture."""
    ids = torch.tensor([[1, 5, -200, -200, -200, -200, 9, 10]])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=picture("a")[None]).logits


def test_names_map_two_ways() -> None:
    keys = list(tiny_model().state_dict())
    disk = [OURS.to_disk(key) for key in keys]
    assert len(set(disk)) == len(keys)
    assert [OURS.to_memory(key) for key in disk] == keys
    assert all(
        key.startswith(("language_model.", "vision_tower.vision_model.", "multi_modal_")) for key in disk
    )
    for key in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_3.bias"):
        assert projector_key(original_projector_key(key)) == key


def test_full_checkpoint_opens_equal(tmp_path: Path) -> None:
    model = tiny_model(1).eval()
    writer("full").write(model, tmp_path)
    _, again, _, context = load_pretrained_model(str(tmp_path))
    assert torch.equal(logits(model), logits(again))
    assert context == 2048


def test_missing_and_unexpected_tensors_are_named(tmp_path: Path) -> None:
    writer("full").write(tiny_model(), tmp_path)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    weights["multi_modal_projector.linear_9.weight"] = weights.pop("multi_modal_projector.linear_1.weight")
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(UsageError, match=r"1 missing \(.*linear_1\.weight\) and 1 unexpected \(.*linear_9"):
        load_full(tmp_path, dtype=torch.float32)


@pytest.fixture
def adapter(tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A trained-looking LoRA checkpoint beside its base, and what it says."""
    base = tmp_path / "base"
    model = tiny_model(2)
    writer("full").write(model, base)
    wrapped = add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0)).eval()
    with torch.no_grad():
        for name, weight in wrapped.named_parameters():
            if weight.requires_grad:
                weight.add_(
                    0.1 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name)))
                )
    writer("lora", base).write(wrapped, tmp_path / "lora")
    return tmp_path / "lora", logits(wrapped)


LORA_ATOL = 1e-5  # merged weights are rounded once: worst seen 1.4e-6


def test_adapter_opens_by_its_path(adapter: tuple[Path, torch.Tensor]) -> None:
    folder, wanted = adapter
    _, model, _, _ = load_pretrained_model(str(folder))
    torch.testing.assert_close(logits(model), wanted, atol=LORA_ATOL, rtol=0)


def test_adapter_opens_after_both_were_moved(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder, wanted = adapter
    new = tmp_path / "elsewhere"
    shutil.move(tmp_path / "base", new / "base")
    shutil.move(folder, new / "any name")
    _, model, _, _ = load_pretrained_model(str(new / "any name"))
    torch.testing.assert_close(logits(model), wanted, atol=LORA_ATOL, rtol=0)


def test_adapter_refuses_another_base(adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder, _ = adapter
    writer("full").write(tiny_model(7), tmp_path / "other")
    with pytest.raises(UsageError, match="other weights"):
        load_pretrained_model(str(folder), model_base=str(tmp_path / "other"))
    shutil.rmtree(tmp_path / "base")
    with pytest.raises(UsageError, match="--model-base"):
        load_pretrained_model(str(folder))


def test_adapter_holds_the_projector_and_never_the_tower(adapter: tuple[Path, torch.Tensor]) -> None:
    keys = load_file(adapter[0] / ADAPTER_WEIGHTS_NAME).keys()
    assert any("multi_modal_projector.linear_1.weight" in key for key in keys)
    assert any("language_model.layers.0.self_attn.q_proj.lora_A" in key for key in keys)
    assert not any("vision_tower" in key or "lm_head" in key for key in keys)


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no config\.json"):
        load_pretrained_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UsageError, match="'bert'"):
        load_pretrained_model(str(tmp_path))


@pytest.mark.parametrize("kind", ["linear", "mlp2x_gelu", "mlp3x_gelu"])
def test_projector_file_has_the_original_names(kind: str, tmp_path: Path) -> None:
    projector = tiny_model(mm_projector_type=kind).model.multi_modal_projector.state_dict()
    write_projector(projector, tmp_path)
    stored = torch.load(tmp_path / "mm_projector.bin", weights_only=True)
    start = "model.mm_projector.weight" if kind == "linear" else "model.mm_projector.2.weight"
    assert start in stored
    again = read_projector(tmp_path / "mm_projector.bin")
    assert again.keys() == projector.keys()
    assert all(torch.equal(again[key], projector[key]) for key in projector)
