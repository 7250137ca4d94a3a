"""On a GPU: FlexAttention's block mask gives the loss and gradients of the dense mask, in fp32 and bf16."""

import pytest
import torch

from llava.train.attention_choice import Trial, obstacle_of_flex
from llava.train.collator import PackingCollator
from tests.tiny import mixed_examples, picture, tiny_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

FLEX_ATOL = {torch.float32: 1e-3, torch.bfloat16: 5e-2}  # not measured yet: no GPU was at hand


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flex_equals_dense(dtype: torch.dtype) -> None:
    batch = {
        name: value.cuda() for name, value in PackingCollator("shared", picture)(mixed_examples(0)).items()
    }
    results = {}
    for implementation in ("sdpa", "flex_attention"):
        model = tiny_model(0).cuda().to(dtype).train()
        model.model.language_model.set_attn_implementation(implementation)
        loss = model(**batch).loss
        loss.backward()
        weight = model.model.language_model.layers[0].self_attn.q_proj.weight
        results[implementation] = (loss.detach().float(), weight.grad.float())
    for first, second in zip(results["sdpa"], results["flex_attention"], strict=True):
        torch.testing.assert_close(first, second, atol=FLEX_ATOL[dtype], rtol=0)


def test_batches_of_many_sizes_need_no_new_graphs() -> None:
    """After two batches (torch makes a size dynamic when it first changes) nothing is compiled any more."""
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    model = tiny_model(0).cuda().train()
    model.model.language_model.set_attn_implementation("flex_attention")
    seen = []
    for seed in range(8):
        batch = PackingCollator("shared", picture)(mixed_examples(seed))
        model(**{name: value.cuda() for name, value in batch.items()}).loss.backward()
        seen.append(counters["stats"]["unique_graphs"])
    assert seen[-1] > 0, "the mask and the attention must be compiled"
    assert seen[2:] == [seen[2]] * len(seen[2:])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flex_proves_itself(dtype: torch.dtype) -> None:
    """With the heads of LLaVA-1.5-7B."""
    assert obstacle_of_flex(Trial(32, 32, 128, dtype, torch.device("cuda"))) is None
