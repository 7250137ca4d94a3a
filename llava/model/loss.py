"""Cross-entropy at targets, a chunk of them at a time: the logits of all targets never exist at once.

Three forms of one sum: `whole_cross_entropy` (what it means, and the slow twin of tests), chunks with our own
gradient (`chunked_cross_entropy`), and Liger's kernel on CUDA where it is installed. Letters: N targets,
D model width, V vocabulary, C targets of a chunk.
"""

from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

CHUNK_BYTES = 128 * 2**20
"""Most bytes of a chunk's logits in fp32: 1,048 targets of a vocabulary of 32,000."""


class LanguageHead(nn.Linear):
    """Hidden states to logits; with targets' ids, to their summed loss instead.

    The loss is computed within this module's call, because what splits weights among devices (ZeRO-3, FSDP,
    accelerate) gathers them around it.
    """

    @classmethod
    def of(cls, linear: nn.Linear) -> "LanguageHead":
        """A head with the weight of `linear` itself; its bias, where it has one, too."""
        head = cls(linear.in_features, linear.out_features, bias=linear.bias is not None, device="meta")
        head.weight, head.bias = linear.weight, linear.bias
        return head

    def forward(self, hidden: Tensor, target_ids: Tensor | None = None) -> Tensor:
        """(..., D) -> (..., V); with `target_ids` (N,), hidden (N, D) -> () in fp32."""
        logits_of = super().forward
        if target_ids is None:
            return logits_of(hidden)
        if self.bias is not None:
            return checkpointed_cross_entropy(logits_of, hidden, target_ids, rows=rows_of(self.out_features))
        return fused_cross_entropy(hidden, self.weight, target_ids)


def summed_cross_entropy(head: nn.Module, hidden: Tensor, target_ids: Tensor) -> Tensor:
    """The loss of all targets, summed, in fp32: hidden (N, D) and ids (N,) -> ().

    A head of another kind, such as one that PEFT has wrapped, is called once per chunk, forwards and again
    backwards.
    """
    if isinstance(head, LanguageHead):
        return head(hidden, target_ids)
    vocabulary: Any = getattr(head, "out_features", None) or head.weight.shape[0]
    return checkpointed_cross_entropy(head, hidden, target_ids, rows=rows_of(vocabulary))


def rows_of(vocabulary: int) -> int:
    """Targets whose fp32 logits fit a chunk."""
    return max(1, CHUNK_BYTES // (4 * vocabulary))


def whole_cross_entropy(head: Any, hidden: Tensor, target_ids: Tensor) -> Tensor:
    """The sum with all logits at once: (N, D), (N,) -> ()."""
    return functional.cross_entropy(head(hidden).float(), target_ids, reduction="sum")


def checkpointed_cross_entropy(head: Any, hidden: Tensor, target_ids: Tensor, *, rows: int) -> Tensor:
    """`whole_cross_entropy` over chunks of `rows` targets, whose logits are computed again for the
    gradient.
    """
    if len(hidden) <= rows:
        return whole_cross_entropy(head, hidden, target_ids)
    losses = [
        checkpoint(whole_cross_entropy, head, part, ids, use_reentrant=False)
        for part, ids in zip(hidden.split(rows), target_ids.split(rows), strict=True)
    ]
    return torch.stack(losses).sum()


def fused_cross_entropy(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> Tensor:
    """`whole_cross_entropy` of a linear head without bias, weight (V, D): Liger's kernel or our chunks."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind):  # what a linear layer would do under autocast
        dtype = torch.get_autocast_dtype(kind)
        hidden, weight = hidden.to(dtype), weight.to(dtype)
    with torch.autocast(kind, enabled=False):
        if kind == "cuda" and has_liger() and len(hidden):
            return liger_cross_entropy(hidden, weight, target_ids)
        return chunked_cross_entropy(hidden, weight, target_ids, rows=rows_of(len(weight)))


@cache
def has_liger() -> bool:
    """Whether Liger's kernels are installed."""
    return find_spec("liger_kernel") is not None


def liger_cross_entropy(hidden: Tensor, weight: Tensor, target_ids: Tensor) -> Tensor:
    """`whole_cross_entropy` by Liger's fused kernel, on CUDA."""
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    return LigerFusedLinearCrossEntropyLoss(reduction="sum")(weight, hidden, target_ids).float()


def chunked_cross_entropy(hidden: Tensor, weight: Tensor, target_ids: Tensor, *, rows: int) -> Tensor:
    """`whole_cross_entropy` of a linear head, `rows` targets at a time: (N, D), (V, D), (N,) -> ().

    Gradients are computed on the way forwards, where a chunk's logits are at hand: backwards needs neither
    logits nor, under ZeRO-3, the weight.
    """
    if not torch.is_grad_enabled():
        hidden, weight = hidden.detach(), weight.detach()
    return ChunkedCrossEntropy.apply(hidden, weight, target_ids, rows)  # pyright: ignore


class ChunkedCrossEntropy(torch.autograd.Function):
    """The computation of `chunked_cross_entropy`; gradients are summed in fp32."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, target_ids: Tensor, rows: int) -> Tensor:
        for_hidden, for_weight = ctx.needs_input_grad[:2]
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        hidden_gradient = torch.empty_like(hidden) if for_hidden else None
        weight_gradient = torch.zeros_like(weight, dtype=torch.float32) if for_weight else None
        for start in range(0, len(hidden), rows):
            part = hidden[start : start + rows]
            loss, gradient = loss_and_gradient(
                part @ weight.T, target_ids[start : start + rows], wanted=for_hidden or for_weight
            )
            total += loss
            if hidden_gradient is not None:
                hidden_gradient[start : start + rows] = gradient @ weight
            if weight_gradient is not None:
                add_product(weight_gradient, gradient.T, part)
        ctx.types = hidden.dtype, weight.dtype
        ctx.save_for_backward(hidden_gradient, weight_gradient)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> tuple:
        # in place, because the weight's is large; a second call backwards is then refused by autograd
        scaled = [
            None if gradient is None else gradient.mul_(outer[0]).to(dtype)
            for gradient, dtype in zip(ctx.saved_tensors, ctx.types, strict=True)
        ]
        return (*scaled, None, None)


def loss_and_gradient(logits: Tensor, target_ids: Tensor, *, wanted: bool) -> tuple[Tensor, Tensor]:
    """The summed loss of a chunk and, if `wanted`, its derivative by the logits, in their type: (C, V), (C,)
    -> (), (C, V). One fp32 tensor of the chunk's size is used for all of it.
    """
    dtype, places = logits.dtype, target_ids[:, None]
    values = logits.float()
    highest = values.amax(dim=1, keepdim=True)
    at_target = values.gather(1, places)
    values = values.sub_(highest).exp_()
    sums = values.sum(dim=1, keepdim=True)
    loss = (sums.log() + highest - at_target).sum()
    if wanted:
        values.div_(sums)
        values.scatter_add_(1, places, values.new_full(places.shape, -1.0))
    return loss, values.to(dtype)


def add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    """`total += left @ right`, in place, without a product of its own where the types agree."""
    if total.dtype == left.dtype:
        total.addmm_(left, right)
    else:
        total += left @ right
