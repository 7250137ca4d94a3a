"""Running the checking programs in this process, and reading what they report."""

import json
from collections.abc import Callable

import pytest

UNKNOWN_KINDS = {"shape of the row"}
"""Kinds of problems that name no field."""

Check = Callable[..., tuple[int, dict, str]]


@pytest.fixture
def check(capsys: pytest.CaptureFixture[str]) -> Check:
    """Runs a checking command twice: exit code, the report as JSON, and as text."""

    def run(program: object, *flags: str) -> tuple[int, dict, str]:
        outputs, codes = [], set()
        for more in (("--json",), ()):
            with pytest.raises(SystemExit) as ended:
                program.main([*flags, *more])  # type: ignore[attr-defined]
            codes.add(ended.value.code)
            outputs.append(capsys.readouterr().out)
        (code,) = codes
        return code, json.loads(outputs[0]), outputs[1]  # type: ignore[return-value]

    return run


def errors_of(report: dict) -> list[dict]:
    """The findings that are errors, with their kind."""
    kinds = [kind for kind in report["kinds"] if kind["level"] == "error"]
    assert sum(kind["count"] for kind in kinds) == report["errors"]
    return [finding | {"kind": kind["kind"]} for kind in kinds for finding in kind["findings"]]


def notes_of(report: dict) -> set[str]:
    """The kinds of notes."""
    return {kind["kind"] for kind in report["kinds"] if kind["level"] == "note"}


def as_lines(*rows: object, end: str = "\n") -> bytes:
    """JSON lines."""
    return end.join(map(json.dumps, rows)).encode()
