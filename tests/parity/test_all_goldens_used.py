"""No golden file lies about unused: a test names it, or golden data that a test reads name it."""

import ast
import json
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from tests.parity.golden import DATA

TESTS = Path(__file__).resolve().parents[1]
BY_FOLDER = {"models": 2, "tokenizers": 2, "metrics": 2, "image_processors": 1, "images": 1}
"""Data that are opened by their folder, so that its name stands for its files, and how deep it lies."""


def name_of(file: Path) -> str:
    """What must be named somewhere: the file, or its folder."""
    parts = file.relative_to(DATA).parts
    depth = BY_FOLDER.get(parts[0], len(parts))
    return parts[depth - 1]


def words(texts: Iterable[str]) -> set[str]:
    """Parts of paths and names in texts."""
    return {word for text in texts for word in re.split(r"[\s/()\[\]{}:,'\"]+", text)}


@cache
def words_of_tests() -> frozenset[str]:
    """In the strings of all tests and helpers but this one, docstrings left out."""
    texts: list[str] = []
    for file in TESTS.rglob("*.py"):
        if file.resolve() != Path(__file__).resolve():
            texts += strings(ast.parse(file.read_text(encoding="utf-8")))
    return frozenset(words(texts))


def strings(tree: ast.AST) -> Iterator[str]:
    """String constants that are more than a statement by themselves."""
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in alone:
            yield node.value


def texts_in(value: object) -> Iterator[str]:
    """All strings in a JSON value, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from texts_in(entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield key
            yield from texts_in(entry)


def unused(files: Iterable[Path], known: set[str]) -> set[Path]:
    """Files that neither the known words name, nor a JSON file that is named itself."""
    left = set(files)
    while named := {file for file in left if name_of(file) in known}:
        left -= named
        for file in named:
            if file.suffix == ".json" and name_of(file) == file.name:
                known = known | words(texts_in(json.loads(file.read_text(encoding="utf-8"))))
    return left


def golden_files() -> list[Path]:
    """All golden data of the repository."""
    return [file for file in DATA.rglob("*") if file.is_file()]


def test_every_golden_file_is_used() -> None:
    files = golden_files()
    assert len(files) > 100
    left = unused(files, set(words_of_tests()))
    assert not left, f"used by no test: {sorted(str(file.relative_to(DATA)) for file in left)}"


def test_a_file_that_nobody_names_is_found() -> None:
    known = set(words_of_tests())
    stray = [DATA / "model" / "stray.json", DATA / "metrics" / "stray_case" / "answers.jsonl"]
    assert unused([*golden_files(), *stray], known) == set(stray)
