"""Templates, prompts and the demo's pictures equal the original's, through the original's names."""

from types import SimpleNamespace

import pytest
from PIL import Image

from llava.conversation import TEMPLATES, Conversation, SeparatorStyle, conv_templates, default_conversation
from tests.parity.golden import golden

TEMPLATE_DATA = golden("conversation/templates.json")
PROMPTS = golden("conversation/prompts.json")
SIZES = golden("conversation/process_image_sizes.json")
PICTURE = Image.new("RGB", (4, 3), "red")

PLAIN_WITH_ANSWERS = (
    "the original's 'plain' has no second separator and fails at an answer; ours ends it as a text"
)
NO_FIRST_QUESTION = "the original fails without a first question; ours says so"


def message_of(golden_message: str | dict | None) -> object:
    """A message as a client writes it; a golden picture tuple becomes one with a picture."""
    if isinstance(golden_message, dict):
        return golden_message["image_tuple"], PICTURE, "Default"
    return golden_message


def conversation_of(case: dict, name: str) -> Conversation:
    """A template's conversation with the case's messages."""
    conversation = conv_templates[name].copy()
    if case["template_messages_cleared"]:
        conversation.messages = []
    for number, message in enumerate(case["messages"]):
        conversation.append_message(conversation.roles[number % 2], message_of(message))
    return conversation


def test_every_template_is_there_with_the_same_data() -> None:
    assert set(conv_templates) == set(TEMPLATES) == set(TEMPLATE_DATA["templates"])
    for name, wanted in TEMPLATE_DATA["templates"].items():
        found = conv_templates[name]
        assert isinstance(found.sep_style, SeparatorStyle)
        assert found.sep_style.name == wanted["sep_style"] == TEMPLATES[name].style.name
        for key in ("system", "sep", "sep2", "version"):
            assert getattr(found, key) == getattr(TEMPLATES[name], key) == wanted[key], (name, key)
        assert list(found.roles) == wanted["roles"]
        assert found.offset == wanted["offset"]
        assert [list(message) for message in found.messages] == wanted["initial_messages"]
        assert all(conv_templates[other] is found for other in wanted["same_object_as"])
    assert all(conv_templates[name] is default_conversation for name in TEMPLATE_DATA["default_conversation"])


def test_all_prompts_are_equal() -> None:
    """The original's errors are the only cases without a golden text; each has a reason, which is printed."""
    compared, better = 0, {PLAIN_WITH_ANSWERS: 0, NO_FIRST_QUESTION: 0}
    for case in PROMPTS["cases"]:
        names = [case["template"]] + [a for a, name in PROMPTS["aliases"].items() if name == case["template"]]
        for name in names:
            conversation = conversation_of(case, name)
            if "error" not in case:
                wanted = case["prompt"].replace("[[SYSTEM]]", conversation.system)
                assert conversation.get_prompt() == wanted, (name, case["case"])
                compared += 1
            elif name in ("plain", "v0_plain"):
                texts = [m["image_tuple"] if isinstance(m, dict) else m for m in case["messages"]]
                assert conversation.get_prompt() == "".join(f"{text}\n" for text in texts if text)
                better[PLAIN_WITH_ANSWERS] += 1
            else:
                with pytest.raises(ValueError, match="the first message is empty"):
                    conversation.get_prompt()
                better[NO_FIRST_QUESTION] += 1
    for reason, number in better.items():
        print(f"{number} prompts not compared: {reason}")  # noqa: T201
    assert better == {PLAIN_WITH_ANSWERS: 40, NO_FIRST_QUESTION: 12}
    assert compared == 338  # 252 texts, 86 of them under two names


def test_conversations_that_clients_build_themselves_give_the_same_text() -> None:
    """Every keyword of the original, and attributes set afterwards."""
    for name, template in conv_templates.items():
        own = Conversation(
            system="",
            roles=list(template.roles),
            messages=(),
            offset=0,
            sep_style=SeparatorStyle.SINGLE,
            sep="?",
            sep2="!",
            version="x",
            skip_next=True,
        ).copy()
        own.system, own.sep_style, own.sep, own.sep2 = "S", template.sep_style, template.sep, template.sep2
        own.append_message(own.roles[0], "q")
        own.append_message(own.roles[1], None)
        wanted = template.copy()
        wanted.messages, wanted.system = [[wanted.roles[0], "q"], [wanted.roles[1], None]], "S"
        assert own.get_prompt() == wanted.get_prompt(), name
        assert (own.version, own.skip_next) == ("x", False)


@pytest.mark.parametrize("case", SIZES["cases"], ids=lambda c: f"{c['mode']}-{c['in_size']}")
def test_pictures_are_sent_in_the_same_size(case: dict) -> None:
    conversation = default_conversation.copy()
    image = Image.new("RGB", tuple(case["in_size"]), "red")
    conversation.append_message("USER", ("what?", image, case["mode"]))
    conversation.append_message("ASSISTANT", None)
    (found,) = conversation.get_images(return_pil=True)
    assert list(found.size) == case["out_size"]
    assert conversation.process_image(image, case["mode"], return_pil=True).size == found.size


def test_what_a_log_keeps_is_equal() -> None:
    wanted = SIZES["dict_of_conversation_with_image"]
    conversation = default_conversation.copy()
    conversation.append_message("USER", ("hello <image>", PICTURE, "Pad"))
    conversation.append_message("ASSISTANT", "ok")
    found = conversation.dict()
    assert list(found) == list(wanted)
    assert {**found, "roles": list(found["roles"])} == wanted
    assert found["messages"] is not conversation.messages


def test_the_prompts_of_the_golden_file_hold_the_interesting_cases() -> None:
    kinds = SimpleNamespace(
        canned=[case for case in PROMPTS["cases"] if not case["template_messages_cleared"]],
        pictures=[case for case in PROMPTS["cases"] if any(isinstance(m, dict) for m in case["messages"])],
        empty=[case for case in PROMPTS["cases"] if "" in case["messages"]],
    )
    assert (len(kinds.canned), len(kinds.pictures), len(kinds.empty)) == (12, 48, 48)
