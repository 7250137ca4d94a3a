"""JSON files of model folders, which anybody may have written: read as plain data, or told what is wrong."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llava.errors import UsageError

MAX_JSON_BYTES = 128 << 20
"""Most bytes of such a file; the largest in use, tokenizers of many languages, take about a quarter."""


def read_model_json(file: Path) -> dict[str, Any]:
    """The object in a JSON file; `UsageError` when it is no JSON, no object, or too large to be one."""
    try:
        size = file.stat().st_size
        if size > MAX_JSON_BYTES:
            raise UsageError(f"{file} has {size:,} bytes, more than {MAX_JSON_BYTES:,}; get the file again.")
        value = json.loads(file.read_text(encoding="utf-8"))
    except UsageError:
        raise
    except RecursionError:
        raise UsageError(f"{file} is nested too deeply; get the file again.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise UsageError(f"{file} holds no JSON object but {type(value).__name__}; get the file again.")
    return value


@contextmanager
def blame(file: Path) -> Iterator[None]:
    """What a library makes of a foreign file's values is that file's fault: any exception of the body becomes
    a `UsageError` that names it, but for failed assertions.
    """
    try:
        yield
    except (AssertionError, KeyboardInterrupt, SystemExit):
        raise
    except UsageError as error:
        if str(file.parent) in str(error):
            raise
        raise UsageError(f"{file}: {error}") from None
    except BaseException as error:  # a panic of the tokenizers' Rust code is no Exception
        first_line = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(f"{file} cannot be used: {first_line[:300]} ({type(error).__name__}).") from error
