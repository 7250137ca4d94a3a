"""A command-line parser whose complaints are one clear message: unknown flags get the nearest name, exit code
2.
"""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from llava.errors import UsageError


class CommandParser(argparse.ArgumentParser):
    """argparse without abbreviations; every problem is a `UsageError`."""

    def __init__(self, description: str) -> None:
        super().__init__(
            description=description,
            allow_abbrev=False,
            formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help).")

    def parse(self, argv: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse; all unknown flags are named at once, each with the nearest known one."""
        arguments, unknown = self.parse_known_args(argv)
        flags = [text.split("=")[0] for text in unknown if text.startswith("-")]
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            hints = [describe_unknown(flag, known) for flag in flags] or [f"unexpected {' '.join(unknown)}"]
            raise UsageError("; ".join(hints) + " (see --help).")
        return arguments


def describe_unknown(flag: str, known: Sequence[str]) -> str:
    """`unknown flag X, did you mean Y?`"""
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
    return f"unknown flag {flag}" + (f", did you mean {near[0]}?" if near else "")
