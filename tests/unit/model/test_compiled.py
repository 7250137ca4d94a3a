"""Compiled decoder layers: one graph serves all layers and batches, with the gradients of eager layers."""

import copy

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from llava.model.attention import block_mask, dense_mask
from llava.model.compiled import compile_layers
from llava.model.lora import LoraSettings, add_lora
from llava.train.collator import PackingCollator
from llava.train.step_memory import enable_checkpointing
from tests.tiny import mixed_examples, picture, tiny_model

ATOL = 1e-5  # fp32, backend aot_eager: worst seen 1.0e-6
SEEDS = range(5)


@pytest.fixture(autouse=True)
def _fresh_compiler() -> None:
    torch._dynamo.reset()
    counters.clear()


def models(kind: str, *, checkpointing: bool) -> tuple[nn.Module, nn.Module]:
    """A model with eager layers, and its twin with compiled ones."""
    model = tiny_model(0)
    model.model.vision_tower.requires_grad_(False)
    if checkpointing:
        enable_checkpointing(model)
    trainable = add_lora(model, LoraSettings(rank=2, alpha=4, dropout=0.0)) if kind == "lora" else model
    twin = copy.deepcopy(trainable)
    inner = twin.get_base_model() if kind == "lora" else twin
    assert compile_layers(inner.model.language_model, "aot_eager") == 2
    assert trainable.state_dict().keys() == twin.state_dict().keys()
    return trainable.train(), twin.train()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "checkpointing"), [("full", False), ("lora", True)])
def test_one_graph_for_all_layers_and_batches(kind: str, checkpointing: bool) -> None:
    eager, compiled = models(kind, checkpointing=checkpointing)
    shapes = set()
    for seed in SEEDS:
        batch = PackingCollator("shared", picture)(mixed_examples(seed))
        shapes.add(tuple(batch["input_ids"].shape))
        found = []
        for model in (eager, compiled):
            model.zero_grad()
            model(**batch).loss.backward()
            found.append({name: w.grad for name, w in model.named_parameters() if w.grad is not None})
        assert found[0].keys() == found[1].keys()
        for name, gradient in found[0].items():
            torch.testing.assert_close(found[1][name], gradient, atol=ATOL, rtol=0, msg=name)
    assert len(shapes) >= 3, "the batches must differ in rows and tokens"
    assert 1 in {rows for rows, _ in shapes}
    assert counters["stats"]["unique_graphs"] == 2, "one for all batches, one for those of a single row"


@pytest.mark.filterwarnings("ignore")
def test_one_graph_makes_the_block_masks_of_all_batches() -> None:
    """The compiler's first half on a CPU; FlexAttention itself needs a GPU."""
    build = torch.compile(block_mask, dynamic=True, backend="eager")
    for seed, (rows, length) in enumerate([(2, 300), (3, 513), (4, 130), (2, 900)]):
        generator = torch.Generator().manual_seed(seed)
        groups = torch.randint(0, 3, (rows, length), generator=generator).sort(dim=1).values
        branches = torch.randint(0, 3, (rows, length), generator=generator)
        blocks = build(groups, branches).to_dense()
        dense = dense_mask(groups, branches)
        padded = nn.functional.pad(dense, (0, -length % 128, 0, -length % 128))
        wanted = padded.unflatten(2, (-1, 128)).unflatten(4, (-1, 128)).any(dim=5).any(dim=3)
        assert torch.equal(blocks.bool(), wanted)
        assert not wanted.all(), "some blocks must be empty"
    assert counters["stats"]["unique_graphs"] == 1
