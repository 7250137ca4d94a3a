"""How a test adds rows to the closing table of injected faults; `tests.faults.table` prints it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

from tests.faults.hostile_models import little_memory, originals, ours
from tests.faults.table import ROWS_KEY

if TYPE_CHECKING:
    from tests.faults.trainings import Trainings

__all__ = ["little_memory", "originals", "ours"]

SURVIVED, REFUSED = "survived", "refused"
"""Verdicts: the result is that of an undisturbed run, or a clear message came before any harm."""

FaultLog = Callable[..., None]
"""`fault_log(fault, happened, verdict, count=1)`: `count` faults of one kind were injected."""


@pytest.fixture
def fault_log(record_property: Callable[[str, object], None]) -> FaultLog:
    """Adds rows to the closing table; those of a test that fails afterwards appear as FAILED."""

    def log(fault: str, happened: str, verdict: str, count: int = 1) -> None:
        record_property(ROWS_KEY, (fault, happened, verdict, count))

    return log


@pytest.fixture(scope="session")
def trainings() -> Iterator["Trainings"]:
    """Tiny trainings in forks of one warm process; in memory where that is possible, as syncing is free
    there.
    """
    from tests.faults.trainings import warm_trainings

    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with TemporaryDirectory(dir=place) as folder, warm_trainings(Path(folder)) as found:
        yield found
