"""The loss on samples that are not trained on: a mean over all their targets, whatever the batches and
ranks.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from llava.train.ranks_agree import has_several_ranks


@torch.no_grad()
def mean_loss(
    model: nn.Module, batches: Iterable[dict[str, Any]], device: torch.device, *, at_batch: Callable[[], None]
) -> tuple[float, int]:
    """The mean over the targets of all batches of all ranks, and their number; NaN without a target.

    Every rank must have as many batches. `at_batch` is called before each of them.
    """
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    for batch in batches:
        at_batch()
        inputs = {name: value.to(device) for name, value in batch.items() if isinstance(value, torch.Tensor)}
        total += model(**inputs, num_items_in_batch=1).loss.double().item()
        count += len(batch["targets"])
    model.train(was_training)
    sums = torch.tensor([total, count], dtype=torch.float64)
    if has_several_ranks():
        sums = sums.to(device)
        torch.distributed.all_reduce(sums)
    total, count = sums.tolist()
    return (total / count if count else float("nan")), int(count)
