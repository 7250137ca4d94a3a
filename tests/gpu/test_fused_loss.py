"""On a GPU: the chunked loss and Liger's kernel give the loss and gradients of all logits at once."""

import pytest
import torch

from llava.model.loss import chunked_cross_entropy, has_liger, liger_cross_entropy, whole_cross_entropy

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

RTOL = {torch.float32: 1e-4, torch.bfloat16: 5e-2}  # of the largest entry; not measured: no GPU was at hand
TARGETS, WIDTH, VOCABULARY = 300, 128, 3000


@pytest.mark.parametrize("dtype", RTOL)
@pytest.mark.parametrize("form", ["chunked", "liger"])
def test_forms_agree(form: str, dtype: torch.dtype) -> None:
    if form == "liger" and not has_liger():
        pytest.skip("liger-kernel is not installed")
    torch.manual_seed(0)
    hidden = torch.randn(TARGETS, WIDTH, device="cuda", dtype=dtype, requires_grad=True)
    weight = torch.randn(VOCABULARY, WIDTH, device="cuda", dtype=dtype, requires_grad=True)
    ids = torch.randint(0, VOCABULARY, (TARGETS,), device="cuda")
    whole = whole_cross_entropy(lambda states: states @ weight.T, hidden, ids)
    if form == "liger":
        ours = liger_cross_entropy(hidden, weight, ids)
    else:
        ours = chunked_cross_entropy(hidden, weight, ids, rows=64)
    wanted = [whole, *torch.autograd.grad(whole * 0.37, [hidden, weight])]
    found = [ours, *torch.autograd.grad(ours * 0.37, [hidden, weight])]
    for one, other in zip(found, wanted, strict=True):
        difference = (one.float() - other.float()).abs().max() / other.float().abs().max()
        assert difference < RTOL[dtype]
