"""How a conversation becomes text: one renderer per style, with the spans of the answers; needs no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import UsageError

Turn = tuple[str, str | None]
"""(`human` or `gpt`, text); None is an answer still to be given."""


class SeparatorStyle(Enum):
    """How turns are told apart; the names are the original's."""

    SINGLE = auto()
    TWO = auto()
    MPT = auto()
    PLAIN = auto()
    LLAMA_2 = auto()


@dataclass(frozen=True)
class Template:
    """System text, names of the two sides, and separators; `sep2` ends an answer where it differs from
    `sep`.
    """

    name: str
    style: SeparatorStyle
    system: str
    roles: tuple[str, str]
    sep: str
    sep2: str | None = None
    version: str = "Unknown"

    @property
    def ends(self) -> tuple[str, str]:
        """What follows a question, and an answer."""
        return self.sep, self.sep if self.sep2 is None else self.sep2


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and the (start, end) spans that carry the loss: each answer with what ends
    it. `said` are the spans of what the two sides wrote; everything else is the template's.
    """

    text: str
    answer_spans: tuple[tuple[int, int], ...]
    said: tuple[tuple[int, int], ...] = field(default=(), compare=False)


class Writer:
    """Text that grows, and spans of it."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.spans: list[tuple[int, int]] = []
        self.said: list[tuple[int, int]] = []

    def add(self, text: str) -> None:
        """Add the template's own text at the end."""
        self.text += text

    def say(self, before: str, text: str, after: str, *, answer: bool) -> None:
        """Add what one side wrote between two texts of the template; an answer's span holds all three."""
        start = len(self.text)
        self.text += before + text + after
        self.said.append((start + len(before), len(self.text) - len(after)))
        if answer:
            self.spans.append((start, len(self.text)))

    def rendered(self) -> Rendered:
        """The text and its spans."""
        return Rendered(self.text, tuple(self.spans), tuple(self.said))


def check_order(turns: Sequence[Turn]) -> None:
    """`UsageError` unless turns alternate, human first."""
    for number, (role, _) in enumerate(turns):
        if role != ("human", "gpt")[number % 2]:
            raise UsageError(
                f"turn {number} is from {role!r}; turns alternate between 'human' and 'gpt', human first."
            )


def render(template: Template, turns: Sequence[Turn]) -> Rendered:
    """The text of a conversation. Raises `UsageError` when turns do not alternate, beginning with `human`."""
    check_order(turns)
    named = [(template.roles[number % 2], text) for number, (_, text) in enumerate(turns)]
    return render_named(template, named)


def render_named(template: Template, turns: Sequence[Turn]) -> Rendered:
    """The same with the names of the sides as they are to be written, (name, text); every second is an
    answer.
    """
    return RENDERERS[template.style](template, turns).rendered()


def render_single(template: Template, turns: Sequence[Turn]) -> Writer:
    """`system###Human: question###Assistant: answer###`: one separator after every turn."""
    return render_two(replace(template, sep2=None), turns)


def render_two(template: Template, turns: Sequence[Turn]) -> Writer:
    """`system USER: question ASSISTANT: answer</s>`: another separator after answers."""
    writer = Writer(template.system + template.sep)
    for number, (name, text) in enumerate(turns):
        writer.add(f"{name}:")
        if text is not None:
            writer.say(" ", text, template.ends[number % 2], answer=number % 2 == 1)
    return writer


def render_mpt(template: Template, turns: Sequence[Turn]) -> Writer:
    """ChatML: the role's line, the text, the separator."""
    writer = Writer(template.system + template.sep)
    for number, (name, text) in enumerate(turns):
        writer.add(name)
        if text is not None:
            writer.say("", text, template.sep, answer=number % 2 == 1)
    return writer


def render_plain(template: Template, turns: Sequence[Turn]) -> Writer:
    """Texts and separators only. (The original's own `plain` has no second separator and fails at an
    answer.)
    """
    writer = Writer(template.system)
    for number, (_, text) in enumerate(turns):
        if text is not None:
            writer.say("", text, template.ends[number % 2], answer=number % 2 == 1)
    return writer


def render_old_layout(template: Template, turns: Sequence[Turn]) -> Rendered:
    """What the original trains the one-separator templates on, which is not what it asks with.

    The system text and an empty line; `### Human: question` and `### Assistant: answer`, each on a line of
    its own; `### ` at the end. An answer's span ends with the `###` behind it, where decoding stops.
    """
    check_order(turns)
    writer = Writer(f"{template.system}\n\n{template.sep}")
    for number, (_, text) in enumerate(turns):
        writer.add(f" {template.roles[number % 2]}:")
        writer.say(" ", text or "", f"\n{template.sep}", answer=number % 2 == 1)
    writer.add(" ")
    return writer.rendered()


def render_caption(template: Template, caption: str) -> Rendered:
    """What the projector stage trains on: `<image>`, and the caption directly behind it."""
    writer = Writer(DEFAULT_IMAGE_TOKEN)
    writer.say("", caption, template.sep, answer=True)
    return writer.rendered()


def render_llama_2(template: Template, turns: Sequence[Turn]) -> Writer:
    """`[INST] <<SYS>> ... question [/INST] answer </s>`, `<s>` between rounds; an open turn leaves nothing.

    Raises `UsageError` without a first question, which carries the system text.
    """
    writer = Writer()
    if turns and turns[0][1] is None:
        raise UsageError("the first message is empty; this template needs a question to begin with.")
    for number, (_, text) in enumerate(turns):
        if text is None:
            continue
        if number % 2:
            writer.say(" ", text, f" {template.ends[1]}", answer=True)
            continue
        system = f"<<SYS>>\n{template.system}\n<</SYS>>\n\n" if number == 0 and template.system else ""
        writer.add((template.sep if number else "") + f"[INST] {system}")
        writer.say("", text, " [/INST]", answer=False)
    return writer


RENDERERS = {
    SeparatorStyle.SINGLE: render_single,
    SeparatorStyle.TWO: render_two,
    SeparatorStyle.MPT: render_mpt,
    SeparatorStyle.PLAIN: render_plain,
    SeparatorStyle.LLAMA_2: render_llama_2,
}
