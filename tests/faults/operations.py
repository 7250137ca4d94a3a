"""Faults at steps and at the writes of a training, by name; each is armed before the run begins."""

import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback

from llava.train.collator import PackingCollator
from tests.faults.guards.injected import arm

WRITING = os.O_WRONLY | os.O_RDWR
OPERATIONS = ("os.rename", "os.remove", "os.rmdir", "os.mkdir")


class KillAt(TrainerCallback):
    """SIGKILL after step `step`, before its saving; with `substep` after its first micro-batch."""

    def __init__(self, step: int, *, substep: bool) -> None:
        self.step = step
        self.substep = substep

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if not self.substep and state.global_step == self.step:
            kill_me()

    def on_substep_end(self, args, state, control, **kwargs) -> None:
        if self.substep and state.global_step == self.step:
            kill_me()


class WaitAt(TrainerCallback):
    """At step `step`, write a file and stay until the process is killed."""

    def __init__(self, step: int, sign: str) -> None:
        self.step = step
        self.sign = Path(sign)

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            self.sign.touch()
            time.sleep(600)


class FillDisk(TrainerCallback):
    """When training begins, something else takes `bytes` of the disk."""

    def __init__(self, filler: dict) -> None:
        self.filler = filler

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        Path(self.filler["path"]).write_bytes(b"\0" * self.filler["bytes"])


class LimitFiles(TrainerCallback):
    """After a step no file may be larger than so many bytes, by the kernel's limit."""

    def __init__(self, step: int, largest: int) -> None:
        self.step = step
        self.largest = largest

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.step:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self.largest,) * 2)


class RecordOrder(TrainerCallback):
    """Write the ids of the samples of each batch that is drawn for training, a JSON list a line."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_begin(self, args, state, control, **kwargs) -> None:
        collate, file = PackingCollator.__call__, self.file

        def watched(collator: PackingCollator, examples: list) -> dict:
            with file.open("a") as stream:
                stream.write(json.dumps([entry.sample_id for entry in examples if entry is not None]) + "\n")
            return collate(collator, examples)

        PackingCollator.__call__ = watched


def kill_me() -> None:
    """As a power cut: nothing of this process runs any more."""
    os.kill(os.getpid(), signal.SIGKILL)


def path_of(name: object, handle: object) -> str:
    """The absolute path that an operation names, relative to an open folder or not."""
    text = os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else ""
    if isinstance(handle, int) and handle >= 0:
        return os.path.join(os.readlink(f"/proc/self/fd/{handle}"), text)
    return text


def watch_operations(folder: str, act: Callable[[str], None]) -> None:
    """Call `act` before everything that this process does to the files of a folder: opening for writing,
    renaming, removing, making folders, syncing.
    """

    def hook(event: str, values: tuple) -> None:
        if event == "open" and isinstance(values[2], int) and values[2] & WRITING:
            path = path_of(values[0], None)
        elif event in OPERATIONS:
            path = path_of(values[0], values[-1])
        else:
            return
        if path.startswith(folder):
            act(f"{event} {path.removeprefix(folder)}")

    sys.addaudithook(hook)
    sync = os.fsync

    def watched_sync(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if path.startswith(folder):
            act(f"fsync {path.removeprefix(folder)}")
        sync(handle)

    os.fsync = watched_sync


def inject(faults: dict, output_dir: str) -> list[TrainerCallback]:
    """Prepare this process to fail as asked."""
    callbacks: list[TrainerCallback] = arm(faults.get("armed"))
    if "kill_at_step" in faults:
        callbacks.append(KillAt(faults["kill_at_step"], substep=faults.get("substep", False)))
    if "wait_at_step" in faults:
        callbacks.append(WaitAt(faults["wait_at_step"], faults["sign"]))
    if "order" in faults:
        callbacks.append(RecordOrder(faults["order"]))
    if "record" in faults:
        log = open(faults["record"], "a", buffering=1)  # noqa: SIM115 - as long as the process
        watch_operations(output_dir, lambda operation: print(operation, file=log))
    if "kill_at_operation" in faults:
        left = [faults["kill_at_operation"]]

        def count(operation: str) -> None:
            left[0] -= 1
            if left[0] < 0:
                kill_me()

        watch_operations(output_dir, count)
    if "fill_at_start" in faults:
        callbacks.append(FillDisk(faults["fill_at_start"]))
    if "largest_file_at" in faults:
        callbacks.append(LimitFiles(*faults["largest_file_at"]))
    if "clock" in faults:
        real = time.time
        time.time = lambda: real() + faults["clock"]
    return callbacks
