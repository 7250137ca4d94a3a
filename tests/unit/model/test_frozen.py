"""Nothing is kept or computed for weights that do not train: no graph, no gradient, no activation below the
first trainable weight.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from llava.model.lora import LoraSettings, add_lora
from llava.train.collator import PackingCollator
from llava.train.step_memory import enable_checkpointing
from tests.tiny import mixed_examples, picture, tiny_model

BATCH = PackingCollator("shared", picture)(mixed_examples(0))


def kept_bytes(run: Callable[[], object]) -> int:
    """Bytes that autograd keeps for the way back during a call, weights not counted."""
    kept: dict[int, int] = {}

    def pack(value: Tensor) -> Tensor:
        if not isinstance(value, nn.Parameter) and not isinstance(value._base, nn.Parameter):
            kept[value.untyped_storage()._cdata] = value.untyped_storage().nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        run()
    return sum(kept.values())


def has_graph(module: nn.Module) -> list[bool]:
    """Whether each later output of a module has a graph."""
    seen: list[bool] = []

    def look(_: nn.Module, args: tuple, output: object) -> None:
        tensor = output if isinstance(output, Tensor) else next(iter(output.values()))  # type: ignore
        seen.append(tensor.requires_grad)

    module.register_forward_hook(look)
    return seen


def test_lora_makes_no_gradient_of_frozen_parts() -> None:
    model = tiny_model(0)
    wrapped = add_lora(model, LoraSettings(rank=2, alpha=4, dropout=0.0)).train()
    tower = has_graph(model.model.vision_tower)
    words = has_graph(model.get_input_embeddings())
    wrapped(**BATCH).loss.backward()
    assert (tower, words) == ([False], [False])
    for name, weight in wrapped.named_parameters():
        assert (weight.grad is not None) == weight.requires_grad, name
    trained = {name for name, weight in wrapped.named_parameters() if weight.grad is not None}
    assert trained
    assert all("lora_" in name or "multi_modal_projector" in name for name in trained)


def test_a_frozen_tower_keeps_nothing_and_a_trained_one_does() -> None:
    model = tiny_model(0).train()
    pixels = BATCH["pixel_values"]
    assert kept_bytes(lambda: model.tower_features(pixels)) > pixels.nbytes
    model.model.vision_tower.requires_grad_(False)
    assert kept_bytes(lambda: model.tower_features(pixels)) == 0


def test_layers_below_the_first_trainable_weight_keep_nothing() -> None:
    model = tiny_model(0).train()
    whole = kept_bytes(lambda: model(**BATCH))
    model.requires_grad_(False)
    layers = model.model.language_model.layers
    layers[1].requires_grad_(True)
    below, above = has_graph(layers[0]), has_graph(layers[1])
    kept = kept_bytes(lambda: model(**BATCH).loss.backward())
    assert (below[0], above[0]) == (False, True)
    assert kept < whole / 2
    for name, weight in model.named_parameters():
        assert (weight.grad is not None) == ("language_model.layers.1." in name), name


@pytest.mark.parametrize("frozen_projector", [False, True])
def test_checkpointing_gives_the_gradients_of_an_adapter(frozen_projector: bool) -> None:
    """Also where nothing before the first adapter asks for a gradient."""
    settings = LoraSettings(rank=2, alpha=4, dropout=0.0, train_projector=not frozen_projector)
    found = []
    for checkpointing in (False, True):
        model = tiny_model(0)
        wrapped = add_lora(model, settings).train()
        torch.manual_seed(0)
        with torch.no_grad():
            for name, weight in wrapped.named_parameters():
                if "lora_" in name:
                    weight.normal_(std=0.2)
        if checkpointing:
            enable_checkpointing(model)
        wrapped(**BATCH).loss.backward()
        found.append({name: w.grad for name, w in wrapped.named_parameters() if w.requires_grad})
    assert any("layers.0" in name for name in found[0])
    for name, gradient in found[0].items():
        assert gradient is not None
        torch.testing.assert_close(found[1][name], gradient, atol=1e-6, rtol=0)  # worst seen 0
