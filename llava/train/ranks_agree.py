"""What the first rank finds out, all ranks know; and when one fails, all stop with the reason."""

from collections.abc import Callable
from typing import TypeVar

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
