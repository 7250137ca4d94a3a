"""Faults that a training injects into itself, by name; each is armed before the run begins."""

import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

from llava.model.llava import LlavaForCausalLM
from llava.train.collator import PackingCollator
from llava.train.saving import CheckpointWriter

AFTER_SAME_REQUEST = 1.2
"""Seconds after which a second signal is one of its own."""


class At(TrainerCallback):
    """Calls `act` in one event of one step, counted from 1."""

    def __init__(self, event: str, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act
        setattr(self, event, self._event)

    def _event(self, args: object, state: Any, control: object, **kwargs: object) -> None:
        if state.global_step + 1 == self.step:
            self.act()


def send(number: int, *, group: bool = False) -> None:
    """A signal to this process, or to its loaders too, noted before it goes on."""
    if group:  # from another process: loaders know their parent's signals
        subprocess.run(["kill", f"-{int(number)}", "--", f"-{os.getpid()}"], check=False)
    else:
        os.kill(os.getpid(), number)
    time.sleep(0.05)


def send_signal(spec: dict[str, Any]) -> list[TrainerCallback]:
    """A signal at the start of a step, between micro-batches, or while a checkpoint is written."""
    number = signal.Signals[spec["signal"]]
    if spec["where"] != "saving":
        return [At(spec["where"], spec["step"], lambda: send(number, group=spec.get("group", False)))]
    write = CheckpointWriter.write

    def written(self: CheckpointWriter, *args: Any, **kwargs: Any) -> None:
        write(self, *args, **kwargs)
        if args[1].name != "rehearsal":  # before the first step, which is no save
            send(number)  # optimiser, scheduler and random state are still to come

    CheckpointWriter.write = written  # type: ignore[method-assign]
    return []


def send_twice(spec: dict[str, Any]) -> list[TrainerCallback]:
    """Two signals within one step, which would last much longer."""
    number = signal.Signals[spec["signal"]]

    def act() -> None:
        send(number)
        time.sleep(AFTER_SAME_REQUEST)
        send(number)
        time.sleep(60)

    return [At("on_step_begin", spec["step"], act)]


def spoil(spec: dict[str, Any]) -> list[TrainerCallback]:
    """A loss, or with `gradient` only its gradient, that is `value` in the micro-batches of these numbers."""
    loss_at, value, seen = LlavaForCausalLM.loss_at, float(spec["value"]), [0]

    def spoiled(self: LlavaForCausalLM, *args: Any) -> torch.Tensor:
        loss = loss_at(self, *args)
        seen[0] += type(loss) is torch.Tensor  # and no fake one, by which memory is estimated
        if seen[0] not in spec["at"] or not self.training:
            return loss
        if spec.get("gradient"):
            loss.register_hook(lambda gradient: gradient * value)
            return loss
        return loss * value

    LlavaForCausalLM.loss_at = spoiled  # type: ignore[method-assign]
    return []


def die(spec: dict[str, Any]) -> list[TrainerCallback]:
    """SIGKILL."""
    return [At("on_step_begin", spec["step"], lambda: send(signal.SIGKILL))]


def sleep(spec: dict[str, Any]) -> list[TrainerCallback]:
    """A step that takes long, or for ever."""
    return [At("on_substep_end", spec["step"], lambda: time.sleep(spec["seconds"]))]


def collating(
    act: Callable[[], object], *, worker_call: int = 0, after_step: int = 0
) -> list[TrainerCallback]:
    """Let a collator do something: at each loader process's call of this number, or in the training itself
    after a step.
    """
    call, num_calls, armed = PackingCollator.__call__, [0], [False]

    def called(self: PackingCollator, examples: Any) -> Any:
        if torch.utils.data.get_worker_info() is not None:
            num_calls[0] += 1
        if armed[0] or (worker_call and num_calls[0] == worker_call):
            act()
        return call(self, examples)

    PackingCollator.__call__ = called  # type: ignore[method-assign]
    return [At("on_step_begin", after_step, lambda: armed.__setitem__(0, True))] if after_step else []


def fail() -> None:
    """What a bug would do."""
    raise ValueError("this picture cannot be made a tensor")


def exhaust() -> None:
    """Ask for more memory than this process may have."""
    resource.setrlimit(resource.RLIMIT_AS, (1 << 32, resource.RLIM_INFINITY))
    bytearray(1 << 40)


def in_loader(spec: dict[str, Any]) -> list[TrainerCallback]:
    """A loader process that is killed, raises, or has no memory left; or the training, where it loads."""
    acts = {"kill": lambda: os.kill(os.getpid(), signal.SIGKILL), "raise": fail, "memory": exhaust}
    return collating(acts[spec["act"]], **spec["when"])


FAULTS: dict[str, Callable[[dict[str, Any]], list[TrainerCallback]]] = {
    "signal": send_signal,
    "twice": send_twice,
    "spoil": spoil,
    "die": die,
    "sleep": sleep,
    "loader": in_loader,
}


def arm(spec: dict[str, Any] | None) -> list[TrainerCallback]:
    """The callbacks of a fault; some change a class instead."""
    if spec is None or spec.get("rank", 0) not in ("all", int(os.environ.get("RANK", "0"))):
        return []
    return FAULTS[spec["kind"]](spec)
