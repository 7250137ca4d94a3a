"""Complaints of the evaluation commands: unknown flags with the nearest name, and before missing ones."""

import pytest

from llava.command_line import CommandParser
from llava.errors import UsageError


def parser() -> CommandParser:
    options = CommandParser("A command.")
    options.add_argument("--model-path", required=True)
    options.add_argument("--temperature", type=float, default=0.0)
    return options


def test_a_misspelt_flag_is_named_although_the_right_one_is_missing() -> None:
    with pytest.raises(UsageError, match=r"unknown flag --model-pth, did you mean --model-path\?"):
        parser().parse(["--model-pth", "here"])


def test_all_unknown_flags_at_once() -> None:
    with pytest.raises(UsageError, match="unknown flag --model-pth, ") as caught:
        parser().parse(["--model-pth", "here", "--temprature=1"])
    assert "did you mean --temperature?" in str(caught.value)


def test_what_is_no_flag_is_named_too() -> None:
    with pytest.raises(UsageError, match="unexpected more"):
        parser().parse(["--model-path", "here", "more"])


def test_negative_numbers_are_values() -> None:
    assert parser().parse(["--model-path", "here", "--temperature", "-1"]).temperature == -1
