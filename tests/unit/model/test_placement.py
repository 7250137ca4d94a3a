"""Devices: what the loader's words mean, and what it says of others."""

import logging
from types import SimpleNamespace

import pytest
import torch

from llava.errors import UsageError
from llava.model import placement
from llava.model.builder import load_pretrained_model
from llava.model.placement import SPREADING, one_device, share_out, whole_layers
from tests.parity.golden import golden_folder
from tests.tiny import picture, tiny_model

FULL = str(golden_folder("llava-v1.5-tiny"))


def pretend(monkeypatch: pytest.MonkeyPatch, num_gpus: int) -> None:
    """A machine with so many GPUs, as far as `one_device` looks."""
    cuda = SimpleNamespace(device_count=lambda: num_gpus, is_available=lambda: num_gpus > 0)
    monkeypatch.setattr(placement, "torch", SimpleNamespace(cuda=cuda, device=torch.device))


@pytest.mark.parametrize(
    ("device_map", "device", "num_gpus", "wanted"),
    [
        ("auto", None, 0, "cpu"),
        ("auto", None, 1, "cuda"),
        ("auto", None, 2, None),
        ("auto", "cuda", 2, None),
        ("auto", "cuda:1", 2, "cuda:1"),
        ("auto", "cpu", 2, "cpu"),
        (None, None, 2, "cuda"),
        ("", None, 2, "cuda"),
        ("cuda:1", None, 2, "cuda:1"),
        ({"": "cuda:1"}, None, 2, "cuda:1"),
        ({"": 1}, "cuda", 2, "cuda:1"),
        ({"model": 0, "lm_head": 0}, None, 2, "cuda:0"),
        ({"model": 0, "lm_head": 1}, None, 2, None),
        ("balanced", None, 2, None),
        ("sequential", None, 1, "cuda"),
    ],
)
def test_one_device_or_several(
    device_map: object, device: str | None, num_gpus: int, wanted: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, num_gpus)
    assert one_device(device_map, device) == (None if wanted is None else torch.device(wanted))


@pytest.mark.parametrize("device_map", ["gpu", 1.5, "cuda:x"])
def test_other_words_are_refused_with_the_known(device_map: object) -> None:
    with pytest.raises(UsageError, match="or one of auto, balanced"):
        one_device(device_map, None)


def test_parts_on_devices_of_their_own_give_the_same_logits() -> None:
    """Only a CPU is at hand, so both parts are there; the hooks that move numbers are in place."""
    model = tiny_model(1).eval()
    ids = torch.tensor([[1, -200, 9]])
    with torch.no_grad():
        wanted = model(input_ids=ids, images=picture("a")[None]).logits
        share_out(model, {"model": "cpu", "lm_head": "cpu"})
        assert torch.equal(model(input_ids=ids, images=picture("a")[None]).logits, wanted)
    assert whole_layers(model) >= {"LlamaDecoderLayer", "CLIPEncoderLayer"}
    with pytest.raises(UsageError, match="device_map does not fit the model"):
        share_out(tiny_model(1), {"lm_head": "cpu"})
    assert "auto" in SPREADING


def test_keywords_of_the_loader(caplog: pytest.LogCaptureFixture) -> None:
    """What evaluation harnesses hand through; the name of the model decides nothing, and that is said."""
    with caplog.at_level(logging.WARNING):
        _, model, _, _ = load_pretrained_model(
            FULL, None, "mpt-lora-no-such-model", device_map="cpu", multimodal=True, torch_dtype="bfloat16"
        )
    assert "'mpt-lora-no-such-model' is not used" in caplog.text
    assert model.dtype == torch.bfloat16
    assert load_pretrained_model(FULL, device="cpu", dtype="auto")[1].dtype == torch.float32
    with pytest.raises(TypeError, match="unexpected keywords: colour"):
        load_pretrained_model(FULL, colour="red")
    with pytest.raises(UsageError, match="use float32, float16 or bfloat16"):
        load_pretrained_model(FULL, dtype="int4")
    with pytest.raises(UsageError, match="pip install flash-attn"):
        load_pretrained_model(FULL, use_flash_attn=True)
