"""Signals that ask a training to stop: the first is kept for the end of the step, a second ends the run."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from llava.terminal import note
from llava.train.exit_codes import code_of_signal, leave_code

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
END = b"\0"
SAME_REQUEST = 1.0
"""Seconds within which a second signal is the same request: a cluster signals all processes of a job, and
torchrun then hands its own signal on.
"""


class StoppedBySignal(SystemExit):
    """The run ends in order after a signal; its code is that of the signal."""

    def __init__(self, number: int) -> None:
        super().__init__(code_of_signal(number))
        self.name = signal.Signals(number).name


class StopSignals:
    """A context in which signals are only noted; `number` is the first one, 0 as long as there was none.

    A second signal ends the process at once, even while the main thread waits for other ranks and could run
    no handler: a thread reads what came from a pipe that Python's own handler in C writes to.
    """

    def __init__(self, *, leave: Callable[[int], object] = os._exit) -> None:
        self.number = 0
        self.leave = leave
        self.asked_at = 0.0
        self.previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is not threading.main_thread():
            return self  # only the main thread may catch signals
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.previous_pipe = signal.set_wakeup_fd(self.writer, warn_on_full_buffer=False)
        self.previous = {number: signal.signal(number, do_nothing) for number in CAUGHT}
        self.thread = threading.Thread(target=self._listen, name="stop signals", daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if not self.previous:
            return
        for number, handler in self.previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self.previous_pipe)
        os.write(self.writer, END)  # closing it is not enough, where loaders' processes still hold it
        self.thread.join()
        os.close(self.writer)
        os.close(self.reader)
        self.previous = {}

    def _listen(self) -> None:
        while (content := os.read(self.reader, 1)) != END:
            if content[0] in CAUGHT:
                self.note(content[0])

    def note(self, number: int) -> None:
        """A signal came."""
        now = time.monotonic()
        if not self.number:
            self.number, self.asked_at = number, now
            name = signal.Signals(number).name
            say(f"{name}: stopping after this step, with a checkpoint. A second signal ends the run at once.")
        elif now - self.asked_at > SAME_REQUEST:
            say("A second signal: the run ends at once, without a new checkpoint.")
            code = code_of_signal(number)
            leave_code(code)
            self.leave(code)


def do_nothing(number: int, frame: FrameType | None) -> None:
    """A handler in Python must be there for the one in C to write to the pipe."""


def say(text: str) -> None:
    """A line on the error stream, from whichever rank."""
    note(f"{text}\n")
    sys.stderr.flush()


def shield_worker() -> None:
    """In a loader's process: go on while the training saves, whoever else signals all processes of the run.

    Ctrl-C and a cluster's signals reach every process of a group. SIGTERM counts only from the training
    itself, which ends its loaders with it.
    """
    signal.set_wakeup_fd(-1)
    for number in CAUGHT:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=end_with_parent, daemon=True).start()


def end_with_parent() -> None:
    """Wait for the parent's SIGTERM."""
    while True:
        if signal.sigwaitinfo({signal.SIGTERM}).si_pid == os.getppid():
            os._exit(0)
