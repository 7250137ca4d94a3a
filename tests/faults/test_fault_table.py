"""The closing table itself: rows appear, equal rows are counted together, rows of failed tests say so."""

import pytest

pytest_plugins = ["pytester"]

TESTS = """
def test_good(fault_log):
    fault_log("kill -9", "went on", "survived", count=3)
    fault_log("kill -9", "went on", "survived")

def test_bad(fault_log):
    fault_log("disk full", "died", "survived")
    assert False
"""


def test_table_counts_and_tells_failures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "from tests.faults.conftest import fault_log\nfrom tests.faults.table import pytest_terminal_summary"
    )
    pytester.makepyfile(TESTS)
    result = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*5 injected faults*", "*4 x kill -9 *survived*", "*1 x disk full*FAILED*"])
