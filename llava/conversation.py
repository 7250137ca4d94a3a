"""Stop-gap of the lead, to be overwritten by the helper's full version."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Template:
    name: str
    style: str
    system: str
    roles: tuple[str, str]
    sep: str
    sep2: str | None


@dataclass(frozen=True)
class Rendered:
    text: str
    answer_spans: tuple[tuple[int, int], ...]


V1 = Template(
    "v1",
    "two",
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    ("USER", "ASSISTANT"),
    " ",
    "</s>",
)
PLAIN = Template("plain", "plain", "", ("", ""), "\n", None)
TEMPLATES = {"v1": V1, "vicuna_v1": V1, "plain": PLAIN}


def render(template: Template, turns: Sequence[tuple[str, str | None]]) -> Rendered:
    text, spans = "", []
    if template.style == "plain":
        text = "<image>"
        start = len(text)
        text += (turns[1][1] or "") + "\n"
        return Rendered(text, ((start, len(text)),))
    text = template.system + " "
    for role, value in turns:
        if role == "human":
            text += f"USER: {value} "
        elif value is None:
            text += "ASSISTANT:"
        else:
            text += "ASSISTANT:"
            start = len(text)
            text += f" {value}</s>"
            spans.append((start, len(text)))
    return Rendered(text, tuple(spans))
