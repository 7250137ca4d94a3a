"""A closing table of all injected faults: what was done, what happened, whether that is what must happen."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.faults.trainings import Trainings

SURVIVED, REFUSED = "survived", "refused"
"""Verdicts: the result is that of an undisturbed run, or a clear message came before any harm."""
FAILED = "FAILED"
ROWS_KEY = "fault_rows"

FaultLog = Callable[..., None]
"""`fault_log(fault, happened, verdict, count=1)`: `count` faults of one kind were injected."""


@pytest.fixture
def fault_log(record_property: Callable[[str, object], None]) -> FaultLog:
    """Adds rows to the closing table; those of a test that fails afterwards appear as FAILED."""

    def log(fault: str, happened: str, verdict: str, count: int = 1) -> None:
        record_property(ROWS_KEY, (fault, happened, verdict, count))

    return log


def count_rows(stats: dict[str, list], outcome: str) -> Counter[tuple[str, str, str]]:
    """(fault, happened, verdict) of all tests that ended in one way -> number of faults."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for report in stats.get(outcome, []):
        for key, row in getattr(report, "user_properties", ()):
            if key == ROWS_KEY and report.when == "call":
                fault, happened, verdict, count = row
                counts[fault, happened, FAILED if outcome == "failed" else verdict] += count
    return counts


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table."""
    counts = count_rows(terminalreporter.stats, "passed") + count_rows(terminalreporter.stats, "failed")
    if not counts:
        return
    terminalreporter.section(f"{sum(counts.values())} injected faults")
    width = max(len(fault) for fault, _, _ in counts)
    for (fault, happened, verdict), count in counts.items():
        terminalreporter.write_line(f"{count:>6} x {fault:<{width}}  {verdict:<9} {happened}")


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
