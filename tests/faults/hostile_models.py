"""Models to be made hostile: golden ones and one of our own layout, a bound on memory, and mutations."""

import json
import random
import resource
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llava.errors import UsageError
from llava.model.builder import load_pretrained_model
from llava.model.checkpoint import write_config, write_weights
from tests.parity.golden import DATA

HUGE, NAN = 10**9, float("nan")
FULL, LORA, LANGUAGE_MODEL, TOWER = "llava-v1.5-tiny", "llava-v1.5-tiny-lora", "tiny-vicuna-v1.5", "tiny-clip"
ROOM = 1 << 30
"""Bytes that a hostile model may take beside what the process has; the golden ones take half a megabyte."""


@pytest.fixture(scope="session")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of all golden models, to be changed and put right again."""
    return Path(shutil.copytree(DATA / "models", tmp_path_factory.mktemp("models") / "models"))


@pytest.fixture(scope="session")
def ours(originals: Path) -> Path:
    """A checkpoint of our own layout."""
    tokenizer, model, image_processor, _ = load_pretrained_model(str(originals / FULL))
    folder = originals / "ours"
    write_weights(model.state_dict(), folder, tied=False)
    write_config(model.config, folder)
    tokenizer.save_pretrained(str(folder))
    image_processor.save_pretrained(str(folder))
    return folder


@pytest.fixture
def little_memory() -> Iterator[None]:
    """No more than `ROOM` for the body: an allocation of what a file claims would fail, and be seen."""
    load_pretrained_model(str(DATA / "models" / FULL))  # what is imported on the way counts as there
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refusal_of(call: Callable[[], object]) -> str | None:
    """The message of a call's `UsageError`, None without one. Whatever else is raised goes on."""
    try:
        call()
    except UsageError as error:
        if any(word in str(error) for word in ("MemoryError", "allocate")):
            pytest.fail(f"the claim was believed: {error}")
        return str(error)
    return None


def refusal(folder: Path, model_base: Path | None = None) -> str | None:
    """The same of opening a model, which may not take long either."""
    started = time.perf_counter()
    told = refusal_of(lambda: load_pretrained_model(str(folder), str(model_base) if model_base else None))
    assert time.perf_counter() - started < 20, "seconds"
    return told


class Changed:
    """A file with other JSON values, or another text or bytes, until the end of a `with`."""

    def __init__(self, file: Path, content: object) -> None:
        self.file, self.before = file, file.read_bytes() if file.is_file() else None
        if not isinstance(content, bytes | str):
            content = json.dumps(content)
        file.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)

    def __enter__(self) -> None:
        """It is changed already."""

    def __exit__(self, *_: object) -> None:
        if self.before is None:
            self.file.unlink()
        else:
            self.file.write_bytes(self.before)


def values_of(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def mutated(value: Any, rng: random.Random, depth: int = 0) -> Any:
    """A JSON value with one place in it changed."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        if rng.random() < 0.1:
            return {name: entry for name, entry in value.items() if name != key}
        return value | {key: mutated(value[key], rng, depth + 1)}
    if isinstance(value, list) and value and rng.random() < 0.8:
        place = rng.randrange(len(value))
        return [*value[:place], mutated(value[place], rng, depth + 1), *value[place + 1 :]]
    return rng.choice(JUNK)


JUNK: list[Any] = [
    None, True, -1, 0, 1, HUGE, 2**31, 2**63, 10**30, 1.5, NAN, float("inf"), "", "evil", "a" * 3000, "\0",
    [], {},
    [[]], {"a": {"b": 1}}, [-1], "../../x", "\ud800", "F32", -(2**63),
]  # fmt: skip
