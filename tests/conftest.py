"""Prints the closing table of injected faults, in the process that sees the results of all workers."""

from tests.faults.table import pytest_terminal_summary

__all__ = ["pytest_terminal_summary"]
