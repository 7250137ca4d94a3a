"""Where a rank is in its training, for messages, and a watch that ends a run which goes no further."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence

from llava.terminal import note
from llava.train.exit_codes import STUCK, leave_code
from llava.train.stop_signals import StopSignals

MOST_IDS = 32
LOOKS = 20
"""How often the watch looks within its time."""
AFTER_A_SIGNAL, TIMES_LONGEST = 30.0, 3.0


def named(ids: Sequence[str]) -> str:
    """The rows of a batch by their ids, the first of many."""
    shown = ", ".join(ids[:MOST_IDS])
    more = len(ids) - MOST_IDS
    return f"rows {shown}" + f" and {more} more" * (more > 0) if ids else "no rows"


class StepProgress:
    """Written by the training loop at each micro-batch, read by whoever has to tell where it was.

    `is_watched` while a step is under way: saving and evaluating may take longer.
    """

    def __init__(self, rank: int, num_ranks: int) -> None:
        self.rank, self.num_ranks = rank, num_ranks
        self.step = 0
        self.doing = "before the first step"
        self.ids: Sequence[str] = ()
        self.is_watched = False
        self.since = time.monotonic()
        self.longest = 0.0

    def enter(self, doing: str, *, step: int, ids: Sequence[str] = (), watched: bool = True) -> None:
        """What comes next."""
        if self.is_watched:
            self.longest = max(self.longest, time.monotonic() - self.since)
        self.step, self.doing, self.ids, self.is_watched = step, doing, ids, watched
        self.since = time.monotonic()

    def __str__(self) -> str:
        who = f"rank {self.rank} of {self.num_ranks}, " if self.num_ranks > 1 else ""
        rows = f", {named(self.ids)}" if self.ids else ""
        return f"{who}step {self.step}, {self.doing}{rows}"


class HangWatch(threading.Thread):
    """Ends this process, with exit code 5, when a micro-batch takes longer than `timeout` seconds.

    The other ranks wait for this one in some collective operation; their own watches or the launcher end
    them. After a signal, which a launcher also sends when another rank is dead, a few times the longest
    micro-batch is enough. A context manager.
    """

    def __init__(
        self,
        progress: StepProgress,
        timeout: float,
        signals: StopSignals,
        *,
        leave: Callable[[int], object] = os._exit,
    ) -> None:
        super().__init__(name="hang watch", daemon=True)
        self.progress, self.timeout, self.signals, self.leave = progress, timeout, signals, leave
        self.is_over = threading.Event()

    def __enter__(self) -> "HangWatch":
        self.progress.enter("setting up", step=self.progress.step)
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.is_over.set()

    def run(self) -> None:
        """Look until the training is over."""
        while not self.is_over.wait(min(1.0, self.timeout / LOOKS)):
            waited = time.monotonic() - max(self.progress.since, self.signals.asked_at)
            if self.progress.is_watched and waited > self.limit():
                self.tell(waited)
                leave_code(STUCK)
                self.leave(STUCK)
                return

    def limit(self) -> float:
        """Seconds that a micro-batch may take."""
        if not self.signals.number:
            return self.timeout
        return min(self.timeout, max(AFTER_A_SIGNAL, TIMES_LONGEST * self.progress.longest))

    def tell(self, waited: float) -> None:
        """Where it stands, and the line of code that it is at."""
        note(
            f"error: no progress for {waited:.0f} s: {self.progress}. The run ends here (--ddp_timeout "
            f"{self.timeout:.0f}); look at the rank whose lines below are not in a message between "
            "ranks. Raise --ddp_timeout if a step may take so long.\n"
        )
        faulthandler.dump_traceback(file=sys.__stderr__ or 2, all_threads=True)
        sys.stderr.flush()
