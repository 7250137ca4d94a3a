"""What the ranks of a training agree on: what the first finds out, all know; when one fails, all stop."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object

from llava.errors import UsageError

Value = TypeVar("Value")


def on_first_rank(find: Callable[[], Value]) -> Value:
    """The value that `find` gives on the first rank, on all ranks (it must be picklable); its error, too.

    The first rank raises what `find` raised, the others a `UsageError` of the same text.
    """
    state = PartialState()
    if state.num_processes == 1:
        return find()
    error: Exception | None = None
    told: list = [None, None]
    if state.is_main_process:
        try:
            told = [find(), None]
        except Exception as caught:
            error = caught
            told = [None, str(caught)]
    broadcast_object_list(told)
    if error is not None:
        raise error
    if told[1] is not None:
        raise UsageError(str(told[1]))
    return told[0]


def together(act: Callable[[], object]) -> list[Exception | str]:
    """Do something on every rank: what went wrong, the error itself first where it was here."""
    mine: Exception | None = None
    try:
        act()
    except Exception as caught:
        mine = caught
    state = PartialState()
    if state.num_processes == 1:
        return [] if mine is None else [mine]
    texts = gather_object([None if mine is None else f"rank {state.process_index}: {mine}"])
    others = [text for text in texts if text is not None]
    return [mine, *others] if mine is not None else others


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
