"""What the ranks of a training agree on."""

from collections.abc import Sequence

import torch


def highest(values: Sequence[int], device: torch.device) -> list[int]:
    """The highest of each value over all ranks, the same list on all of them; every rank has to call it."""
    if not has_several_ranks():
        return list(values)
    tensor = torch.tensor(values, device=device)
    torch.distributed.all_reduce(tensor, op=torch.distributed.ReduceOp.MAX)
    return tensor.tolist()


def has_several_ranks() -> bool:
    """Whether this process is one of several that train together."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
