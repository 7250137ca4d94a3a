"""Pictures are opened and prepared in threads while the model answers, a bounded number ahead."""

import os
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

WORKERS = min(8, os.cpu_count() or 1)
DEPTH = 64
"""Most pictures that wait: of LLaVA-1.6, five tiles of 336 pixels, that is 0.4 GB."""

Prepared = TypeVar("Prepared")


class PicturesAhead(Generic[Prepared]):
    """`load` turns a picture's name into what is wanted of it; what it raises is raised by `take`."""

    def __init__(
        self, load: Callable[[str], Prepared], *, workers: int = WORKERS, depth: int = DEPTH
    ) -> None:
        self._load = load
        self._depth = depth
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="pictures")
        self._coming: deque[str] = deque()
        self._loading: dict[str, Future[Prepared]] = {}

    def __enter__(self) -> "PicturesAhead[Prepared]":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def expect(self, names: Iterable[str]) -> None:
        """The names that will be taken next, in this order; those of an earlier call are forgotten."""
        self._coming = deque(name for name in dict.fromkeys(names) if name not in self._loading)
        self._fill()

    def take(self, name: str) -> Prepared:
        """One picture; it is loaded now unless it was expected. Once taken it is not kept."""
        if name not in self._loading:
            if name in self._coming:
                self._coming.remove(name)
            self._start(name)
        future = self._loading.pop(name)
        self._fill()
        return future.result()

    def _fill(self) -> None:
        """Begin with pictures that are expected, as many as may wait."""
        while self._coming and len(self._loading) < self._depth:
            self._start(self._coming.popleft())

    def _start(self, name: str) -> None:
        self._loading[name] = self._pool.submit(self._load, name)
