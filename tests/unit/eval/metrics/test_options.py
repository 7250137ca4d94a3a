"""The option that an answer chooses, however it is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llava.eval.metrics.options import chosen_option, lettered_options

COLOURS = lettered_options(["red", "dark red", "blue"])


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        *[(text, "B") for text in ("B", "b", "(B)", "B.", " B\n", "**B**", "[B]", "B)", "（B）", "B。")],
        *[(text, "B") for text in ("B. dark red", "B: it looks so", "B) dark red", "B\nbecause", "B、深红")],
        *[(text, "C") for text in ("The answer is C.", "Answer: C", "the correct answer is (C)", "Option C")],
        *[(text, "C") for text in ("答案是C", "答案：C。", "我选择C", "选C", "I would choose option C here")],
        *[(text, "A") for text in ("red", "Red.", "It is red.", "A, for it is red", "the red one, A")],
        *[(text, "B") for text in ("dark red", "A dark red car", "It is DARK  RED, not so light")],
        *[(text, "C") for text in ("I think C", "C because of the sky", "A lake that is blue")],
        *[
            (text, None)
            for text in ("", "  ", "D", "d.", "red or blue", "A or C", "A, B", "B, since it is blue")
        ],
        *[(text, None) for text in ("I do not know.", "A cat", "coloured", "The answer is A or answer C")],
    ],
)
def test_an_answer_is_read(answer: str, letter: str | None) -> None:
    assert chosen_option(answer, COLOURS) == letter


def test_an_option_in_chinese_needs_no_blanks_around_it() -> None:
    options = lettered_options(["红色", "深红色", "蓝色"])
    assert chosen_option("这是深红色的车", options) == "B"
    assert chosen_option("这是蓝色", options) == "C"
    assert chosen_option("红色和蓝色", options) is None


def test_options_that_are_letters_or_empty_disturb_nothing() -> None:
    assert chosen_option("B", lettered_options(["B", "A"])) == "B", "a lone letter is the option's"
    assert chosen_option("It is green", lettered_options(["", "green"])) == "B"
    assert chosen_option("anything", {}) is None


@given(st.text(), st.lists(st.text(max_size=8), max_size=6))
def test_only_offered_letters_come_out(answer: str, options: list[str]) -> None:
    offered = lettered_options(options)
    assert chosen_option(answer, offered) in {None, *offered}


@given(st.integers(0, 3), st.sampled_from(["{}", "({})", "{}.", "{}. word", "The answer is {}.", "答案是{}"]))
def test_every_letter_is_read_alike(number: int, form: str) -> None:
    letter = "ABCD"[number]
    assert chosen_option(form.format(letter), lettered_options(["one", "two", "three", "four"])) == letter
