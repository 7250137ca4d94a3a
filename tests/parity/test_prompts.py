"""Templates and prompts equal the original's as text."""

from llava.conversation import TEMPLATES, conv_templates
from tests.parity.golden import golden


def test_every_template_is_there_with_the_same_data() -> None:
    for name, wanted in golden("conversation/templates.json")["templates"].items():
        found = TEMPLATES[name]
        assert found.style.name == wanted["sep_style"]
        assert (found.system, list(found.roles), found.sep, found.sep2, found.version) == (
            wanted["system"],
            wanted["roles"],
            wanted["sep"],
            wanted["sep2"],
            wanted["version"],
        )


def test_prompts_are_equal() -> None:
    """Cases with canned messages, picture tuples (a demo's form) or an error of the original are left out."""
    compared = 0
    for case in golden("conversation/prompts.json")["cases"]:
        messages = case["messages"]
        if (
            not case["template_messages_cleared"]
            or "error" in case
            or any(isinstance(m, dict) for m in messages)
        ):
            continue
        conversation = conv_templates[case["template"]].copy()
        for number, message in enumerate(messages):
            conversation.append_message(conversation.roles[number % 2], message)
        wanted = case["prompt"].replace("[[SYSTEM]]", conversation.system)
        assert conversation.get_prompt() == wanted, (case["template"], case["case"])
        compared += 1
    assert compared > 180
