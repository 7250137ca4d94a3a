"""Jobs in threads, a bounded number at a time, results as they come."""

import queue
import threading
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Generic, TypeVar

Job = TypeVar("Job")
Result = TypeVar("Result")


class Workers(Generic[Job, Result]):
    """`work` is done by `count` threads; they end with the program, so that Ctrl-C need not wait for a slow
    server.
    """

    def __init__(self, work: Callable[[Job], Result], count: int) -> None:
        self._work = work
        self._count = count
        self._open = 0
        self._jobs: queue.SimpleQueue[tuple[int, Job] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[int, Result | None, BaseException | None]] = queue.SimpleQueue()

    def __enter__(self) -> "Workers[Job, Result]":
        for number in range(self._count):
            threading.Thread(target=self._run, name=f"worker-{number}", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in range(self._count):
            self._jobs.put(None)

    def start(self, key: int, job: Job) -> None:
        """Hand over a job; its result comes with `key`."""
        self._open += 1
        self._jobs.put((key, job))

    def wait_for_room(self) -> Iterator[tuple[int, Result]]:
        """Results until fewer jobs than threads are open; an error of a job is raised after what is done."""
        yield from self._until(self._count - 1)

    def rest(self) -> Iterator[tuple[int, Result]]:
        """The results of all open jobs; likewise."""
        yield from self._until(0)

    def _until(self, most: int) -> Iterator[tuple[int, Result]]:
        failed: BaseException | None = None
        while self._open > most or failed is not None:
            if failed is not None and self._done.empty():
                raise failed
            key, result, error = self._done.get()
            self._open -= 1
            if error is None:
                yield key, result  # type: ignore[misc]
            else:
                failed = failed or error

    def _run(self) -> None:
        while (one := self._jobs.get()) is not None:
            key, job = one
            try:
                self._done.put((key, self._work(job), None))
            except BaseException as error:  # raised where results are taken
                self._done.put((key, None, error))
