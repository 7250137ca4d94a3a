"""Failures and first answers: when a run is stopped early, and how the end tells what failed."""

import pytest

from llava.errors import UsageError
from llava.eval.outcomes import FIRST_ANSWERS, Failure, FirstAnswers, Outcome, describe_failures, is_loop
from llava.eval.questions import Question


def question(number: int, image: str | None = None) -> Question:
    """A question, maybe about a picture."""
    return Question(number, f"What is {number}?", image, image, None)


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        ("the the the the the the the the", True),
        ("!!!!!!!!!!!!!!!!", True),
        ("ab" * 30 + "a", True),
        ("</s></s></s></s></s></s></s></s></s>", True),
        ("a red cat. " * 9, True),
        ("\n".join(["x y"] * 20), True),
        ("no no no", False),
        ("a red cat on a red mat", False),
        ("", False),
        ("1, 2, 3, 4, 5, 6, 7, 8, 9", False),
        ("x" * 2000 + " and then something else", False),
    ],
)
def test_loops(text: str, loop: bool) -> None:
    assert is_loop(text) == loop


def see(outcomes: list[Outcome], *, pictures: int | None = None) -> int:
    """How many outcomes are seen before the run is stopped; all if it is not."""
    first = FirstAnswers()
    for number, outcome in enumerate(outcomes):
        image = None if pictures is None else f"{number % pictures}.png"
        try:
            first.see(question(number, image), outcome)
        except UsageError:
            return number + 1
    return len(outcomes)


GARBAGE = ["", "ha " * 9]


def test_first_answers_that_say_nothing_stop_the_run() -> None:
    for outcomes in ([""] * 100, ["la" * 20] * 100, GARBAGE * 50, [Failure("x"), *GARBAGE * 50]):
        assert see(outcomes) == FIRST_ANSWERS + (outcomes[0] == Failure("x"))


def test_one_good_answer_is_enough() -> None:
    for place in (0, 7, 31):
        assert see([*GARBAGE * 16][:place] + ["a cat"] + GARBAGE * 50) == place + 101


def test_failures_of_many_pictures_stop_the_run_those_of_one_do_not() -> None:
    failures: list[Outcome] = [Failure("damaged")] * 200
    assert see(failures, pictures=1) == see(failures, pictures=31) == 200
    assert see(failures, pictures=100) == see(failures) == FIRST_ANSWERS
    assert see(["a cat", *failures], pictures=100) == 201


def test_the_message_says_what_is_likely() -> None:
    first = FirstAnswers(limit=2)
    first.see(question(0), "")
    with pytest.raises(UsageError, match=r"1 are empty, 1 repeat one word.*--conv-mode.*--no-early-stop"):
        first.see(question(1), "ha " * 9)
    FirstAnswers(limit=None).see(question(0), "")


def test_failures_are_told_by_reason() -> None:
    failures = [(question(number), f"picture {number % 30}") for number in range(300)]
    lines = describe_failures(failures).splitlines()
    assert lines[0] == "  0, 30, 60, 90, 120, 150, 180, 210 and 2 more: picture 0"
    assert len(lines) == 21
    assert "for 10 other reasons: 20, 50" in lines[-1]
    assert lines[-1].count(",") == 99
