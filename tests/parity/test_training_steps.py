"""Gradients and one optimiser step of the original: full fine-tuning, and LoRA with its projector."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from llava.model.builder import build, read_contents
from llava.model.key_names import KeyTable, original_table
from llava.model.lora import adapter_places, merge, wrap
from tests.parity.golden import (
    BASES,
    GoldenBatch,
    golden,
    golden_batch,
    golden_folder,
    open_golden,
    open_shared,
)

VARIANTS = golden("model/forward.json")["variants"]
FULL = [name for name in VARIANTS if "full_finetune_gradients" in VARIANTS[name]["batches"]["mixed4"]]
LORA = golden("model/lora.json")
GRADIENT_RTOL = 5e-6  # fp32, relative to the norm: worst seen 1.0e-6
STEP_LOSS_ATOL = 2e-6  # fp32: worst seen 2.4e-7; without the step the loss is 0.08 away
LORA_LOSS_ATOL = 2e-6  # fp32: worst seen 4.8e-7 (merged)


def mixed4(name: str) -> GoldenBatch:
    """The golden batch on which gradients were taken."""
    _, model, processor, _ = open_shared(name)
    return golden_batch(VARIANTS[name]["batches"]["mixed4"], processor, model.config.image_aspect_ratio)


def loss_of(model: nn.Module, batch: GoldenBatch) -> torch.Tensor:
    """The batch's loss."""
    return model(**batch.as_inputs()).loss


def gradient_norms(parameters: dict[str, nn.Parameter], rename: Callable[[str], str]) -> dict[str, float]:
    """Norms of all gradients by the original's names."""
    return {
        rename(name): parameter.grad.norm().item()
        for name, parameter in parameters.items()
        if parameter.grad is not None
    }


def adamw(parameters: dict[str, nn.Parameter], step: dict, weight_decay: float) -> torch.optim.AdamW:
    """The golden step's optimiser: matrices decay, norms and biases do not."""
    plain = [weight for name, weight in parameters.items() if name.endswith("bias") or "norm" in name]
    others = {id(weight) for weight in plain}
    decayed = [weight for weight in parameters.values() if id(weight) not in others]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=step["lr"], betas=tuple(step["betas"]), eps=step["eps"])


def trained_in_full(name: str) -> tuple[nn.Module, dict[str, nn.Parameter], KeyTable]:
    """A model in training mode with its frozen tower, its trained parameters, and the original's names."""
    _, model, _, _ = open_golden(name)
    model.train().requires_grad_(True)
    model.model.vision_tower.requires_grad_(False)
    parameters = {key: value for key, value in model.named_parameters() if value.requires_grad}
    return model, parameters, original_table(model.config.mm_projector_type)


@pytest.mark.parametrize("name", FULL)
def test_gradients_of_full_training_are_equal(name: str) -> None:
    wanted = VARIANTS[name]["batches"]["mixed4"]["full_finetune_gradients"]
    model, parameters, table = trained_in_full(name)
    loss_of(model, mixed4(name)).backward()
    norms = gradient_norms(parameters, table.to_disk)
    assert norms.keys() == wanted["grad_norms"].keys()
    assert not wanted["params_without_grad"]
    for key, norm in wanted["grad_norms"].items():
        assert norms[key] == pytest.approx(norm, rel=GRADIENT_RTOL), key
    total = nn.utils.clip_grad_norm_(parameters.values(), float("inf")).item()
    assert total == pytest.approx(wanted["global_grad_norm"], rel=GRADIENT_RTOL)


@pytest.mark.parametrize("which", ["after_one_adamw_step", "after_one_adamw_step_clip1"])
@pytest.mark.parametrize("name", FULL)
def test_loss_after_one_step_of_full_training(name: str, which: str) -> None:
    gradients = VARIANTS[name]["batches"]["mixed4"]["full_finetune_gradients"]
    step = gradients[which]
    model, parameters, _ = trained_in_full(name)
    batch = mixed4(name)
    optimizer = adamw(parameters, step, step["weight_decay_on_decay_group"])
    loss_of(model, batch).backward()
    if step["max_grad_norm"] is not None:
        nn.utils.clip_grad_norm_(parameters.values(), step["max_grad_norm"])
    optimizer.step()
    with torch.no_grad():
        assert loss_of(model, batch).item() == pytest.approx(step["loss"], abs=STEP_LOSS_ATOL)
    assert abs(step["loss"] - gradients["loss"]) > 100 * STEP_LOSS_ATOL, "the step must matter"


def wrapped_golden() -> nn.Module:
    """The golden adapter on its base, not merged, in eval mode."""
    folder = golden_folder(LORA["model"])
    contents = read_contents(folder, str(golden_folder(BASES[LORA["model"]])))
    assert contents.adapter is not None
    model = build(contents, dtype=torch.float32)
    return wrap(model, contents.adapter, source=folder).eval()


def test_losses_with_and_without_the_adapter() -> None:
    wrapped, batch = wrapped_golden(), mixed4(LORA["model"])
    with torch.no_grad():
        found = {"loss_unmerged": loss_of(wrapped, batch).item()}
        with wrapped.disable_adapter():
            found["loss_projector_only_no_adapter"] = loss_of(wrapped, batch).item()
        found["loss_merged"] = loss_of(merge(wrapped), batch).item()
    for key, loss in found.items():
        assert loss == pytest.approx(LORA[key], abs=LORA_LOSS_ATOL), key


def test_gradients_and_one_step_of_lora_are_equal() -> None:
    wrapped, batch = wrapped_golden(), mixed4(LORA["model"])
    projector = wrapped.base_model.model.model.multi_modal_projector
    projector.requires_grad_(True)
    start = "model.multi_modal_projector."
    parameters = adapter_places(wrapped) | {f"{start}{key}": one for key, one in projector.named_parameters()}
    table = original_table(wrapped.config.mm_projector_type)
    wanted, step = LORA["gradients_eval_mode_no_dropout"], LORA["after_one_adamw_step"]

    def original_name(key: str) -> str:
        key = table.to_disk(key)
        for part in ("lora_A", "lora_B"):
            key = key.replace(f"{part}.", f"{part}.default.")
        return f"base_model.model.{key}"

    optimizer = adamw(parameters, step, step["weight_decay"])
    loss_of(wrapped, batch).backward()
    norms = gradient_norms(parameters, original_name)
    assert norms.keys() == wanted["grad_norms"].keys()
    for key, norm in wanted["grad_norms"].items():
        assert norms[key] == pytest.approx(norm, rel=GRADIENT_RTOL), key
    optimizer.step()
    with torch.no_grad():
        assert loss_of(wrapped, batch).item() == pytest.approx(step["loss"], abs=STEP_LOSS_ATOL)
    assert abs(step["loss"] - LORA["loss_unmerged"]) > 100 * STEP_LOSS_ATOL, "the step must matter"
