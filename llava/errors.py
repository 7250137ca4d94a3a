"""What users did wrong, told in one message: found, wanted, remedy. Commands exit with code 2, without a
traceback.
"""

import functools
from collections.abc import Callable
from typing import TypeVar

from llava.terminal import guard_logs, note

Result = TypeVar("Result")

PARTIAL = 3
"""Exit code of a command whose result has gaps that it has named."""


class UsageError(ValueError):
    """Something that the user gave (a flag, a path, a file) cannot be used; the message names it and the
    remedy.
    """

    exit_code = 2


def exit_on_usage_error(main: Callable[..., Result]) -> Callable[..., Result]:
    """Wrap a command's main function: a `UsageError` becomes one message on stderr and its exit code; what
    it and logs show is made visible (see `llava.terminal`).
    """

    @functools.wraps(main)
    def wrapper(*args: object, **kwargs: object) -> Result:
        guard_logs()
        try:
            return main(*args, **kwargs)
        except UsageError as error:
            note(f"error: {error}\n")
            raise SystemExit(error.exit_code) from None

    return wrapper
