"""Files of questions and answers for the scoring programs, in any order of lines."""

import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import pytest

ORDERS = 20


def write_lines(rows: Iterable[object], path: Path) -> Path:
    """JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def orders(rows: Sequence[dict]) -> Iterator[list[dict]]:
    """The rows in several orders, the given one first."""
    yield list(rows)
    for seed in range(ORDERS):
        yield random.Random(seed).sample(list(rows), len(rows))


def before_evidence(printed: str) -> str:
    """What a scorer prints before the line about its evidence, which must be the last."""
    *lines, last = printed.splitlines(keepends=True)
    assert last.startswith("Evidence: n=")
    return "".join(lines)


Failing = Callable[..., str]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Failing:
    """refusal(main, *arguments): what a command says that must end with exit code 2."""

    def run(main: Callable[[list[str]], None], *arguments: object) -> str:
        with pytest.raises(SystemExit) as stop:
            main([str(one) for one in arguments])
        assert stop.value.code == 2
        return capsys.readouterr().err

    return run
