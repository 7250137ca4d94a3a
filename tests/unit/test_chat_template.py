"""The Jinja text of every conversation template gives what `render` gives."""

import pytest
from jinja2.sandbox import ImmutableSandboxedEnvironment

from llava.chat_template import chat_template
from llava.conversation import TEMPLATES, Turn, render

QUESTION = 'What is "this" \\ {{ there }}?'
DIALOGUES: dict[str, list[Turn]] = {
    "text": [("human", QUESTION), ("gpt", None)],
    "picture": [("human", f"<image>\n{QUESTION}"), ("gpt", None)],
    "two turns": [("human", "<image>\nWho?"), ("gpt", "Anna\n{%"), ("human", QUESTION), ("gpt", None)],
    "closed": [("human", "<image>\nWho?"), ("gpt", "Anna.")],
}


def rendered(name: str, messages: list[dict], *, generate: bool) -> str:
    """As transformers sets its environment up."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(chat_template(TEMPLATES[name]))
    return template.render(messages=messages, add_generation_prompt=generate)


def content_of(text: str, form: str) -> object:
    """A turn's content as a string, or as parts with the picture first."""
    if form == "string":
        return text
    words = text.removeprefix("<image>\n")
    return [{"type": "image"}] * (words != text) + [{"type": "text", "text": words}]


@pytest.mark.parametrize("form", ["string", "parts"])
@pytest.mark.parametrize("dialogue", DIALOGUES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_jinja_gives_the_text_of_render(name: str, dialogue: str, form: str) -> None:
    turns = DIALOGUES[dialogue]
    messages = [
        {"role": "user" if role == "human" else "assistant", "content": content_of(text, form)}
        for role, text in turns
        if text is not None
    ]
    found = rendered(name, messages, generate=turns[-1][1] is None)
    assert found == render(TEMPLATES[name], turns).text


def test_a_system_message_replaces_the_templates_own() -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who?"}]
    assert rendered("v1", messages, generate=True) == "Be brief. USER: Who? ASSISTANT:"
