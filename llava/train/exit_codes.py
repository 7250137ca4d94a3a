"""What a training ends with, and how a script learns it from behind a launcher. Free of torch.

    0    trained to the end
    1    any other failure, with a traceback
    2    the flags, the data or a file cannot be used (`llava.errors.UsageError`)
    4    a loss or a gradient was not finite
    5    a step took longer than --ddp_timeout
    129, 130, 143    stopped by SIGHUP, by Ctrl-C, by SIGTERM or SIGUSR1

torchrun itself ends with 1 whatever its processes ended with, so each of them leaves its code in the file
that LLAVA_EXIT_CODE_FILE names, the first one for all.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from llava.errors import UsageError

NOT_FINITE, STUCK = 4, 5
FILE_VARIABLE = "LLAVA_EXIT_CODE_FILE"


class NotFiniteError(UsageError):
    """A loss or a gradient that is not a number, or infinite."""

    exit_code = NOT_FINITE


def code_of_signal(number: int) -> int:
    """128 and the signal; SIGUSR1, by which Slurm announces that a job's time is up, counts as SIGTERM."""
    return 128 + (signal.SIGTERM if number == signal.SIGUSR1 else number)


def leave_code(code: object) -> None:
    """Write a code that is not 0 where the script looks for it, unless another process was first."""
    file = os.environ.get(FILE_VARIABLE)
    number = code if isinstance(code, int) else 0 if code is None else 1
    if not file or not number:
        return
    with suppress(OSError), open(file, "x", encoding="utf-8") as out:
        out.write(str(number))


@contextmanager
def code_is_left() -> Iterator[None]:
    """Whatever ends what is inside leaves its exit code."""
    try:
        yield
    except SystemExit as leaving:
        leave_code(leaving.code)
        raise
    except KeyboardInterrupt:
        leave_code(code_of_signal(signal.SIGINT))
        raise
    except BaseException:
        leave_code(1)
        raise
