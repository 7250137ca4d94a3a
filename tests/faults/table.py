"""A closing table of all injected faults: what was done, what happened, whether that is what must happen."""

from collections import Counter

import pytest

FAILED = "FAILED"
ROWS_KEY = "fault_rows"


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
