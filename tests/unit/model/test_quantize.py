"""8 and 4 bits: small weights in the language model alone, logits near the full ones, and clear refusals."""

import sys

import pytest
import torch

from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from tests.parity.golden import golden_folder, open_shared

FULL = str(golden_folder("llava-v1.5-tiny"))
REASON = "bitsandbytes is not installed: 8 and 4 bits are not tried"
IDS = torch.tensor([[1, 292, -200, 638, 592]])
PIXELS = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(0))


def test_without_the_package_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for bits in ({"load_8bit": True}, {"load_4bit": True}):
        with pytest.raises(UsageError, match="pip install bitsandbytes"):
            load_pretrained_model("a folder that is not looked at", **bits)


def test_both_at_once_are_refused() -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        load_pretrained_model(FULL, load_8bit=True, load_4bit=True)


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    """Logits of the shared input."""
    with torch.no_grad():
        return model(input_ids=IDS, images=PIXELS).logits


def test_four_bits_compute_with_the_stored_weights() -> None:
    """The slow twin has plain layers with the rounded weights."""
    package = pytest.importorskip("bitsandbytes", reason=REASON)
    _, model, _, _ = load_pretrained_model(FULL, device="cpu", load_4bit=True)
    found = logits_of(model)
    layers = model.model.language_model
    for name, module in list(layers.named_modules()):
        if isinstance(module, package.nn.Linear4bit):
            plain = torch.nn.Linear(module.in_features, module.out_features, bias=False)
            weight = module.weight
            plain.weight.data = package.functional.dequantize_4bit(weight.data, weight.quant_state)
            layers.set_submodule(name, plain)
    torch.testing.assert_close(found, logits_of(model), atol=1e-4, rtol=0)  # fp32: worst seen 0
    gap = (found - logits_of(open_shared("llava-v1.5-tiny")[1])).abs().max()
    assert gap > 0.1, "rounding must matter"


def test_eight_bits_stay_near() -> None:
    """Largest difference over the spread of the logits: seen 0.062 (what comes in is rounded too)."""
    pytest.importorskip("bitsandbytes", reason=REASON)
    _, model, _, _ = load_pretrained_model(FULL, device="cpu", load_8bit=True)
    wanted = logits_of(open_shared("llava-v1.5-tiny")[1])
    assert 0 < (logits_of(model) - wanted).abs().max() / wanted.std() < 0.2


@pytest.mark.parametrize(("option", "stored"), [("load_8bit", torch.int8), ("load_4bit", torch.uint8)])
def test_the_loader_gives_small_weights_that_answer(option: str, stored: torch.dtype) -> None:
    pytest.importorskip("bitsandbytes", reason=REASON)
    _, model, _, _ = load_pretrained_model(FULL, device="cpu", **{option: True})
    layers = model.model.language_model.layers
    assert {weight.dtype for name, weight in layers.named_parameters() if "proj" in name} == {stored}
    others = [model.lm_head, model.model.multi_modal_projector, model.model.vision_tower]
    assert {weight.dtype for part in others for weight in part.parameters()} == {torch.float32}
    new = model.generate(IDS, images=PIXELS, do_sample=False, max_new_tokens=3, eos_token_id=None)
    assert new.shape == (1, 3)
