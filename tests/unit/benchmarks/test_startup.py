"""No command imports a heavy package for its --help: that is what makes it quick on every machine."""

import pytest

from benchmarks.startup import HEAVY, WORKERS, commands, help_of


def test_the_commands_are_found() -> None:
    found = commands()
    assert len(found) > 30
    assert {"llava.train.train", "llava.eval.model_vqa_loader", "llava.model.export"} <= set(found)
    assert {"scripts/merge_lora_weights.py", "benchmarks.train"} <= set(found)
    assert not set(WORKERS) & set(found)


@pytest.mark.parametrize("command", commands())
def test_help_comes_without_heavy_packages(command: str) -> None:
    text, imported = help_of(command)
    assert "usage" in text.lower() or "--output_dir" in text
    assert not imported, f"of {HEAVY}"


def test_a_heavy_import_would_be_seen() -> None:
    """The benchmark's worker needs torch, and has no flags: it stops at its first word."""
    assert "torch" in help_of("tests.unit.benchmarks.heavy")[1]
