"""FlexAttention is chosen on CUDA only if it gives what SDPA gives, here with others in its place."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor
from transformers import AttentionInterface

from llava.train import attention_choice
from llava.train.attention_choice import Trial, choose_attention, difference_of, obstacle_of_flex
from tests.tiny import tiny_config

TRIAL = Trial(4, 2, 16, torch.float32, torch.device("cpu"))
SDPA = AttentionInterface()["sdpa"]


def test_what_gives_the_same_numbers_is_taken() -> None:
    assert obstacle_of_flex(TRIAL, SDPA, "sdpa") is None
    eager = AttentionInterface()["two_part"]
    assert difference_of(TRIAL, eager, "sdpa", rows=2, length=300, seed=0) < 1e-5  # 0 seen


def test_what_gives_other_numbers_is_not() -> None:
    def unmasked(module: object, *parts: Tensor, **settings: object) -> tuple[Tensor, None]:
        return SDPA(module, *parts[:3], None, **settings)

    assert "differ from SDPA's by" in str(obstacle_of_flex(TRIAL, unmasked, "sdpa"))


def test_wrong_gradients_are_noticed() -> None:
    def cut_off(module: object, query: Tensor, *parts: object, **settings: object) -> tuple[Tensor, None]:
        output, _ = SDPA(module, query, *parts, **settings)
        return output.detach() + 0 * sum(part.sum() for part in (query, *parts[:2])), None

    assert "differ" in str(obstacle_of_flex(TRIAL, cut_off, "sdpa"))


def test_what_fails_is_not_taken_and_the_reason_is_told() -> None:
    def failing(*_: object, **__: object) -> tuple[Tensor, None]:
        raise RuntimeError("no kernel for this card\nand a long trace")

    assert obstacle_of_flex(TRIAL, failing, "sdpa") == "it failed (RuntimeError: no kernel for this card)"


def test_what_is_compiled_for_every_size_is_not_taken() -> None:
    from torch._dynamo.utils import counters

    def compiling(*parts: object, **settings: object) -> tuple[Tensor, None]:
        counters["stats"]["unique_graphs"] += 1
        return SDPA(*parts, **settings)

    assert obstacle_of_flex(TRIAL, compiling, "sdpa") == "it is compiled anew for every size of batch"


@pytest.mark.parametrize(
    ("device", "changes", "obstacle", "wanted"),
    [
        ("cpu", {}, None, "two_part"),
        ("cpu", {"attn_implementation": "eager"}, None, "eager"),
        ("cpu", {"compile_layers": True}, None, "sdpa"),
        ("cuda", {}, None, "flex_attention"),
        ("cuda", {}, "it failed", "sdpa"),
        ("cuda", {"packing": "none"}, None, "sdpa"),
        ("cuda", {"compile_layers": True}, None, "sdpa"),
        ("mps", {}, None, "sdpa"),
    ],
)
def test_choice(
    device: str,
    changes: dict,
    obstacle: str | None,
    wanted: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(attention_choice, "obstacle_of_flex", lambda trial: obstacle)
    flags = {
        "attn_implementation": "auto",
        "compile_layers": False,
        "packing": "shared",
        "device": torch.device(device),
        "bf16": True,
        "fp16": False,
    }
    assert choose_attention(tiny_config().text_config, SimpleNamespace(**flags | changes)) == wanted
    assert ("FlexAttention is not used: it failed" in caplog.text) == (obstacle is not None)
