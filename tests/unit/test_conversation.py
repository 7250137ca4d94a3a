"""Templates render to text, and the spans of the answers are exactly what carries the loss."""

import subprocess
import sys

import pytest

from llava.conversation import (
    TEMPLATES,
    Conversation,
    SeparatorStyle,
    conv_templates,
    default_conversation,
    render,
)
from llava.errors import UsageError

TURNS = [("human", "Who is it?"), ("gpt", "Mira."), ("human", "Sure?"), ("gpt", "Yes.")]
CHATS = sorted(name for name, template in TEMPLATES.items() if template.style is not SeparatorStyle.PLAIN)


def answers_in(name: str, turns: list[tuple[str, str | None]]) -> list[str]:
    """The texts of the answer spans."""
    rendered = render(TEMPLATES[name], turns)
    return [rendered.text[start:end] for start, end in rendered.answer_spans]


@pytest.mark.parametrize("name", CHATS)
def test_a_span_is_the_answer_with_what_ends_it(name: str) -> None:
    found = answers_in(name, TURNS)
    assert [text.split(".")[0].strip() for text in found] == ["Mira", "Yes"]
    ends = {text.split(".")[1] for text in found}
    assert len(ends) == 1
    assert ends <= {"</s>", " </s>", "###", "<|im_end|>"}


def test_v1_to_the_letter() -> None:
    rendered = render(TEMPLATES["v1"], TURNS)
    assert rendered.text.endswith(
        "questions. USER: Who is it? ASSISTANT: Mira.</s>USER: Sure? ASSISTANT: Yes.</s>"
    )
    assert answers_in("v1", TURNS) == [" Mira.</s>", " Yes.</s>"]


@pytest.mark.parametrize("name", CHATS)
def test_an_open_turn_has_no_span_and_ends_where_the_answer_begins(name: str) -> None:
    opened = render(TEMPLATES[name], [*TURNS[:3], ("gpt", None)])
    whole = render(TEMPLATES[name], TURNS)
    assert len(opened.answer_spans) == 1
    assert whole.text.startswith(opened.text)
    assert whole.answer_spans[1][0] == len(opened.text)


@pytest.mark.parametrize("name", CHATS)
def test_an_empty_answer_is_an_answer(name: str) -> None:
    (found,) = answers_in(name, [("human", "Say nothing."), ("gpt", "")])
    assert found.strip()


@pytest.mark.parametrize("marker", ["</s>", "<s>", "[/INST]", " ASSISTANT: ", "###", "<|im_end|>", "<unk>"])
@pytest.mark.parametrize("name", CHATS)
def test_separators_inside_texts_move_no_span(name: str, marker: str) -> None:
    answers = [f"a{marker}b", f"{marker}c"]
    turns = [("human", f"q{marker}"), ("gpt", answers[0]), ("human", marker), ("gpt", answers[1])]
    for wanted, found in zip(answers, answers_in(name, turns), strict=True):
        assert found.lstrip(" ").startswith(wanted.lstrip(" "))


@pytest.mark.parametrize("roles", [["gpt"], ["human", "human"], ["human", "gpt", "gpt"], ["user"]])
def test_turns_that_do_not_alternate_are_refused(roles: list[str]) -> None:
    with pytest.raises(UsageError, match="alternate"):
        render(TEMPLATES["v1"], [(role, "text") for role in roles])


def test_old_code_builds_prompts_turn_by_turn() -> None:
    conversation = conv_templates["v1"].copy()
    conversation.append_message(conversation.roles[0], "<image>\nWho is it?")
    conversation.append_message(conversation.roles[1], None)
    assert conversation.get_prompt().endswith(" USER: <image>\nWho is it? ASSISTANT:")
    conversation.messages[-1][-1] = "Mira."
    assert conversation.get_prompt().endswith(" ASSISTANT: Mira.</s>")
    assert (conversation.sep_style, conversation.sep2) == (SeparatorStyle.TWO, "</s>")


def test_copies_are_independent() -> None:
    conversation = default_conversation.copy()
    conversation.append_message(conversation.roles[0], "hello")
    again = conversation.copy()
    again.messages[0][1] = "changed"
    assert conversation.messages == [["USER", "hello"]]
    assert default_conversation.messages == []


def test_importing_it_needs_no_torch() -> None:
    code = "import sys, llava.conversation; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_second_separator_of_single_is_not_written() -> None:
    own = Conversation("S", ("A", "B"), [["A", "q"], ["B", "a"]], 0, sep="|", sep2="</s>")
    assert own.get_prompt() == "S|A: q|B: a|"
    own.sep_style = SeparatorStyle.TWO
    assert own.get_prompt() == "S|A: q|B: a</s>"
    own.sep_style, own.system = SeparatorStyle.PLAIN, ""
    assert own.get_prompt() == "q|a</s>"


def test_names_are_those_of_the_messages() -> None:
    own = default_conversation.copy()
    own.append_message("TEACHER", "q")
    own.append_message("PUPIL", None)
    assert own.get_prompt().endswith(" TEACHER: q PUPIL:")


def test_an_open_turn_in_the_middle_leaves_nothing_in_llama_2() -> None:
    own = conv_templates["mistral_instruct"].copy()
    own.messages = [["USER", "q"], ["ASSISTANT", "a"], ["USER", None], ["ASSISTANT", "b"]]
    assert own.get_prompt() == "[INST] q [/INST] a </s> b </s>"
