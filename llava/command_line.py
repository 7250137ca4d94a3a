"""A command-line parser whose complaints are one clear message: unknown flags get the nearest name, exit code
2.
"""

import argparse
import difflib
import sys
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
        """Parse; all unknown flags are named at once, each with the nearest known one.

        They come before flags that are missing: a misspelt one is both.
        """
        given = sys.argv[1:] if argv is None else list(argv)
        known = [option for action in self._actions for option in action.option_strings]
        flags = [text.split("=")[0] for text in given if text.startswith("--")]
        hints = [describe_unknown(flag, known) for flag in flags if flag not in known]
        if hints:
            raise UsageError("; ".join(hints) + " (see --help).")
        arguments, unexpected = self.parse_known_args(given)
        if unexpected:
            raise UsageError(f"unexpected {' '.join(unexpected)} (see --help).")
        return arguments


def describe_unknown(flag: str, known: Sequence[str]) -> str:
    """`unknown flag X, did you mean Y?`"""
    near = difflib.get_close_matches(flag, known, n=1, cutoff=0.5)
    return f"unknown flag {flag}" + (f", did you mean {near[0]}?" if near else "")
