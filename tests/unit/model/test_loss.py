"""The chunked loss is the whole one, in value and gradients, for every kind of head and type of numbers."""

import copy
import weakref

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from llava.model import loss
from llava.model.loss import (
    LanguageHead,
    checkpointed_cross_entropy,
    chunked_cross_entropy,
    summed_cross_entropy,
    whole_cross_entropy,
)
from tests.tiny import tiny_model

N, D, V = 37, 6, 101
ROWS = 8
# Worst seen over 200 seeds on a CPU, relative to the largest entry of each result.
RTOL = {
    torch.float32: 2e-6,  # worst seen 7.8e-7
    torch.bfloat16: 2e-2,  # worst seen 1.0e-2; bf16 has 8 bits
}


def inputs(seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states, a head's weight, and ids, with large logits among them."""
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(N, D, generator=generator) * 3
    weight = torch.randn(V, D, generator=generator)
    ids = torch.randint(0, V, (N,), generator=generator)
    return hidden.to(dtype).requires_grad_(), weight.to(dtype).requires_grad_(), ids


def results(value: Tensor, leaves: list[Tensor], scale: float = 0.37) -> list[Tensor]:
    """The loss and the gradients of a multiple of it."""
    return [value.detach(), *torch.autograd.grad(value * scale, leaves)]


def worst_difference(first: list[Tensor], second: list[Tensor]) -> float:
    """The largest difference, relative to the largest entry of each result."""
    assert len(first) == len(second)
    return max(
        float((one.float() - other.float()).abs().max() / other.float().abs().max())
        for one, other in zip(first, second, strict=True)
    )


def chunked_and_whole(seed: int, dtype: torch.dtype) -> tuple[list[Tensor], list[Tensor]]:
    """Both forms on the same numbers."""
    hidden, weight, ids = inputs(seed, dtype)
    chunked = results(chunked_cross_entropy(hidden, weight, ids, rows=ROWS), [hidden, weight])
    whole = results(whole_cross_entropy(lambda x: x @ weight.T, hidden, ids), [hidden, weight])
    return chunked, whole


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("seed", range(3))
def test_chunks_are_the_whole(seed: int, dtype: torch.dtype) -> None:
    assert N % ROWS, "the last chunk must be a smaller one"
    chunked, whole = chunked_and_whole(seed, dtype)
    assert [value.dtype for value in chunked[1:]] == [dtype, dtype]
    assert chunked[0].dtype == torch.float32
    assert worst_difference(chunked, whole) < RTOL[dtype]


@pytest.mark.parametrize("autocast", [False, True])
def test_a_model_head_is_called_once_and_autocast_is_kept(
    autocast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loss, "CHUNK_BYTES", ROWS * V * 4)
    hidden, weight, ids = inputs(1)
    head = LanguageHead(D, V, bias=False)
    head.weight = nn.Parameter(weight.detach())
    calls = []
    head.register_forward_hook(lambda *_: calls.append(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        ours = summed_cross_entropy(head, hidden, ids)
    assert calls == [1], "ZeRO-3 gathers and releases weights around a call"
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        whole = whole_cross_entropy(nn.Linear.forward.__get__(head), hidden, ids)
    leaves = [hidden, head.weight]
    tolerance = RTOL[torch.bfloat16 if autocast else torch.float32]
    assert worst_difference(results(ours, leaves), results(whole, leaves)) < tolerance


def test_a_frozen_head_gets_no_gradient_and_makes_none() -> None:
    hidden, weight, ids = inputs(2)
    weight.requires_grad_(False)
    total = chunked_cross_entropy(hidden, weight, ids, rows=ROWS)
    saved = total.grad_fn.saved_tensors  # type: ignore[union-attr]
    assert [value is None for value in saved] == [False, True]
    total.backward()
    assert hidden.grad is not None
    assert weight.grad is None
    with torch.no_grad():
        assert not chunked_cross_entropy(hidden, weight, ids, rows=ROWS).requires_grad


@pytest.mark.parametrize("kind", ["lora", "copied", "bias"])
def test_wrapped_heads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter on the head, the head among PEFT's copied modules, and a head with a bias."""
    monkeypatch.setattr(loss, "CHUNK_BYTES", ROWS * V * 4)
    torch.manual_seed(0)

    class Owner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lm_head = LanguageHead(D, V, bias=kind == "bias")
            self.other = nn.Linear(D, D)

    owner = Owner()
    if kind != "bias":
        copied = {"target_modules": ["other"], "modules_to_save": ["lm_head"]}
        options = {"target_modules": ["lm_head"]} if kind == "lora" else copied
        owner = get_peft_model(owner, LoraConfig(r=2, init_lora_weights=False, **options)).base_model.model
    hidden, _, ids = inputs(3)
    leaves = [hidden, *(weight for weight in owner.lm_head.parameters() if weight.requires_grad)]
    assert len(leaves) > 1
    ours = results(summed_cross_entropy(owner.lm_head, hidden, ids), leaves)
    assert worst_difference(ours, results(whole_cross_entropy(owner.lm_head, hidden, ids), leaves)) < 2e-6


def test_checkpointed_chunks_are_the_whole() -> None:
    hidden, weight, ids = inputs(4)
    head = nn.Linear(D, V, bias=False)
    head.weight = nn.Parameter(weight.detach())
    leaves = [hidden, head.weight]
    ours = results(checkpointed_cross_entropy(head, hidden, ids, rows=ROWS), leaves)
    assert worst_difference(ours, results(whole_cross_entropy(head, hidden, ids), leaves)) < 2e-6


def test_no_target_is_a_loss_of_zero_with_gradients() -> None:
    hidden, weight, ids = inputs(5)
    total = chunked_cross_entropy(hidden[:0], weight, ids[:0], rows=ROWS)
    total.backward()
    assert total.item() == 0
    assert weight.grad is not None
    assert not weight.grad.any()


class LargestOfWidth(TorchDispatchMode):
    """The most rows of any fp32 tensor (rows, V) that is made."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor) and made.dtype == torch.float32 and made.shape[1:] == (V,):
            self.rows = max(self.rows, len(made))
        return made


@pytest.mark.parametrize("form", ["chunked", "checkpointed", "whole"])
def test_logits_of_all_targets_never_exist(form: str) -> None:
    hidden, weight, ids = inputs(6)
    head = nn.Linear(D, V, bias=False)
    head.weight = nn.Parameter(weight.detach())
    with LargestOfWidth() as watch:
        if form == "chunked":
            total = chunked_cross_entropy(hidden, weight, ids, rows=ROWS)
        elif form == "checkpointed":
            total = checkpointed_cross_entropy(head, hidden, ids, rows=ROWS)
        else:
            total = whole_cross_entropy(head, hidden, ids)
        total.backward()
    assert watch.rows == (N if form == "whole" else ROWS)


def test_the_gradient_is_kept_once() -> None:
    """What the head's weight gets is the tensor that was summed, scaled in place."""
    hidden, weight, ids = inputs(7)
    total = chunked_cross_entropy(hidden, weight, ids, rows=ROWS)
    summed = weakref.ref(total.grad_fn.saved_tensors[1].untyped_storage())  # type: ignore[union-attr]
    place = summed().data_ptr()  # type: ignore[union-attr]
    total.backward()
    assert weight.grad is not None
    assert weight.grad.untyped_storage().data_ptr() == place


def test_tied_heads_and_resized_ones_keep_the_form(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(0).train()
    model.resize_token_embeddings(53, mean_resizing=False)
    assert isinstance(model.lm_head, LanguageHead)
    assert model.lm_head.weight.shape[0] == model.lm_head.out_features == 53
    model.lm_head.weight = model.get_input_embeddings().weight
    twin = copy.deepcopy(model)
    batch = {
        "input_ids": torch.tensor([[1, 5, 6, 7, 52, 9]]),
        "targets": torch.tensor([[0, place, 6 + place] for place in range(5)]),
    }
    monkeypatch.setattr(loss, "CHUNK_BYTES", 2 * 53 * 4)
    model(**batch).loss.backward()
    monkeypatch.setattr(LanguageHead, "forward", lambda self, hidden, ids=None: plain(self, hidden, ids))
    twin(**batch).loss.backward()
    ours, wanted = model.get_input_embeddings().weight.grad, twin.get_input_embeddings().weight.grad
    assert worst_difference([ours], [wanted]) < RTOL[torch.float32]


def plain(head: nn.Linear, hidden: Tensor, ids: Tensor | None) -> Tensor:
    """The slow twin in a model."""
    logits_of = nn.Linear.forward.__get__(head)
    return logits_of(hidden) if ids is None else whole_cross_entropy(logits_of, hidden, ids)
