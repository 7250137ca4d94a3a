"""SECURITY.md says what is so: its limits are those of the code, and what it names is there."""

import importlib
import re

import pytest

from llava import images
from llava.eval import endpoint
from tests.e2e.conftest import ROOT

POLICY = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
LIMITS = re.findall(r"^\| `(MAX_\w+)`[^|]*\| (\d+) \| `([\w/.]+)` \|$", POLICY, re.MULTILINE)


def test_limits_are_listed() -> None:
    assert len(LIMITS) == 8


@pytest.mark.parametrize(("name", "value", "file"), LIMITS, ids=[name for name, _, _ in LIMITS])
def test_a_limit_is_that_of_the_code(name: str, value: str, file: str) -> None:
    module = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    assert getattr(module, name) == int(value)


def test_the_pages_for_users_say_the_same() -> None:
    told = " ".join((ROOT / "docs" / "own_data.md").read_text(encoding="utf-8").split())
    assert f"the limit of {images.MAX_PIXELS:,} pixels in the square" in told
    assert f"A side may be {images.MAX_RATIO} times the other" in told
    assert f"a picture may take {images.MAX_DECODED_BYTES // 1_000_000} MB to decode" in told


def test_the_bound_on_a_servers_answer() -> None:
    assert f"answers above {endpoint.MAX_BYTES:,} bytes" in POLICY


def test_every_part_has_its_tests() -> None:
    found = {
        file.stem.removeprefix("test_hostile_") for file in (ROOT / "tests" / "faults").glob("test_hostile_*")
    }
    assert found >= {
        "paths",
        "pickles",
        "configs",
        "weights",
        "report",
        "terminal",
        "text",
        "secrets",
        "policy",
    }
