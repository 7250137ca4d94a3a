"""Conversation templates as data, and the text they make of a conversation, with the spans of its answers.

`render` is what this package uses. `Conversation`, `SeparatorStyle` and `conv_templates` are the original
LLaVA's names for
code that builds prompts turn by turn; they give the same text. Importing this module needs no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from types import MappingProxyType

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


@dataclass(frozen=True)
class Rendered:
    """A conversation as text, and the (start, end) spans that carry the loss: each answer with what ends
    it.
    """

    text: str
    answer_spans: tuple[tuple[int, int], ...]


class Writer:
    """Text that grows, and spans of it."""

    def __init__(self, text: str = "") -> None:
        self.text = text
        self.spans: list[tuple[int, int]] = []

    def add(self, text: str, *, answer: bool = False) -> None:
        """Add text at the end; an answer's span is kept."""
        start = len(self.text)
        self.text += text
        if answer:
            self.spans.append((start, len(self.text)))


def render(template: Template, turns: Sequence[Turn]) -> Rendered:
    """The text of a conversation. Raises `UsageError` when turns do not alternate, beginning with `human`."""
    for number, (role, _) in enumerate(turns):
        if role != ("human", "gpt")[number % 2]:
            raise UsageError(
                f"turn {number} is from {role!r}; turns alternate between 'human' and 'gpt', human first."
            )
    writer = RENDERERS[template.style](template, turns)
    return Rendered(writer.text, tuple(writer.spans))


def render_two(template: Template, turns: Sequence[Turn]) -> Writer:
    """`system USER: question ASSISTANT: answer</s>`; with one separator also `### Human: ...`."""
    ends = (template.sep, template.sep if template.sep2 is None else template.sep2)
    writer = Writer(template.system + template.sep)
    for number, (_, text) in enumerate(turns):
        writer.add(f"{template.roles[number % 2]}:")
        if text is not None:
            writer.add(f" {text}{ends[number % 2]}", answer=number % 2 == 1)
    return writer


def render_mpt(template: Template, turns: Sequence[Turn]) -> Writer:
    """ChatML: the role's line, the text, the separator."""
    writer = Writer(template.system + template.sep)
    for number, (_, text) in enumerate(turns):
        writer.add(template.roles[number % 2])
        if text is not None:
            writer.add(text + template.sep, answer=number % 2 == 1)
    return writer


def render_plain(template: Template, turns: Sequence[Turn]) -> Writer:
    """Texts and separators only."""
    writer = Writer(template.system)
    for number, (_, text) in enumerate(turns):
        if text is not None:
            writer.add(text + template.sep, answer=number % 2 == 1)
    return writer


def render_caption(template: Template, caption: str) -> Rendered:
    """What the projector stage trains on: `<image>`, and the caption directly behind it."""
    text = DEFAULT_IMAGE_TOKEN + caption + template.sep
    return Rendered(text, ((len(DEFAULT_IMAGE_TOKEN), len(text)),))


def render_llama_2(template: Template, turns: Sequence[Turn]) -> Writer:
    """`[INST] <<SYS>> ... question [/INST] answer </s>`, `<s>` between rounds."""
    writer = Writer()
    for number, (_, text) in enumerate(turns):
        if number % 2:
            if text is not None:
                writer.add(f" {text} {template.sep2}", answer=True)
            continue
        system = f"<<SYS>>\n{template.system}\n<</SYS>>\n\n" if number == 0 and template.system else ""
        writer.add((template.sep if number else "") + f"[INST] {system}{text or ''} [/INST]")
    return writer


RENDERERS = {
    SeparatorStyle.SINGLE: render_two,
    SeparatorStyle.TWO: render_two,
    SeparatorStyle.MPT: render_mpt,
    SeparatorStyle.PLAIN: render_plain,
    SeparatorStyle.LLAMA_2: render_llama_2,
}

USER_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
HUMAN_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
MMTAG_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant is able to understand the visual content that the user provides, and assist the user with "
    "a variety of tasks using natural language."
    "The visual content will be provided with the following format: <Image>visual content</Image>."
)
LLAMA_2_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being "
    "safe.  Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or "
    "illegal content. Please ensure that your responses are socially unbiased and positive in nature.\n\nIf "
    "a question does not make any sense, or is not factually coherent, explain why instead of answering "
    "something not correct. If you don't know the answer to a question, please don't share false information."
)
LLAVA_LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the "
    "user provides, and assist the user with a variety of tasks using natural language."
)
MPT_SYSTEM = (
    "<|im_start|>system\nA conversation between a user and an LLM-based AI assistant. The assistant gives "
    "helpful and honest answers."
)

NAMES = ("USER", "ASSISTANT")
OLD_NAMES = ("Human", "Assistant")
CHATML_NAMES = ("<|im_start|>user\n", "<|im_start|>assistant\n")
CHATML_SYSTEM = "<|im_start|>system\nAnswer the questions."

V0 = Template("v0", SeparatorStyle.SINGLE, HUMAN_SYSTEM, OLD_NAMES, "###")
V1 = Template("v1", SeparatorStyle.TWO, USER_SYSTEM, NAMES, " ", "</s>", "v1")
LLAMA_2 = Template("llama_2", SeparatorStyle.LLAMA_2, LLAMA_2_SYSTEM, NAMES, "<s>", "</s>", "llama_v2")
CHATML = Template("chatml_direct", SeparatorStyle.MPT, CHATML_SYSTEM, CHATML_NAMES, "<|im_end|>", None, "mpt")
PLAIN = Template("plain", SeparatorStyle.PLAIN, "", ("", ""), "\n")

TEMPLATES: MappingProxyType[str, Template] = MappingProxyType(
    {
        "default": V0,
        "v0": V0,
        "v1": V1,
        "vicuna_v1": V1,
        "llama_2": LLAMA_2,
        "mistral_instruct": replace(LLAMA_2, name="mistral_instruct", system="", sep=""),
        "chatml_direct": CHATML,
        "mistral_direct": CHATML,
        "plain": PLAIN,
        "v0_plain": PLAIN,
        "llava_v0": replace(V0, name="llava_v0"),
        "v0_mmtag": replace(V0, name="v0_mmtag", system=MMTAG_SYSTEM, version="v0_mmtag"),
        "llava_v1": replace(V1, name="llava_v1", system=HUMAN_SYSTEM),
        "v1_mmtag": replace(V1, name="v1_mmtag", system=MMTAG_SYSTEM, version="v1_mmtag"),
        "llava_llama_2": replace(LLAMA_2, name="llava_llama_2", system=LLAVA_LLAMA_2_SYSTEM),
        "mpt": replace(CHATML, name="mpt", system=MPT_SYSTEM),
    }
)
"""All templates of the original by its names; a new one is one more line."""


@dataclass
class Conversation:
    """The original's growing conversation: append messages, then ask for the prompt. An empty message is an
    open turn.
    """

    template: Template
    messages: list[list[str | None]] = field(default_factory=list)

    @property
    def system(self) -> str:
        return self.template.system

    @property
    def roles(self) -> tuple[str, str]:
        return self.template.roles

    @property
    def sep(self) -> str:
        return self.template.sep

    @property
    def sep2(self) -> str | None:
        return self.template.sep2

    @property
    def sep_style(self) -> SeparatorStyle:
        return self.template.style

    @property
    def version(self) -> str:
        return self.template.version

    def append_message(self, role: str, message: str | None) -> None:
        """Add a turn; None leaves it open."""
        self.messages.append([role, message])

    def copy(self) -> "Conversation":
        """An independent conversation with the same turns."""
        return Conversation(self.template, [list(message) for message in self.messages])

    def get_prompt(self) -> str:
        """The text so far."""
        turns = [(("human", "gpt")[n % 2], text or None) for n, (_, text) in enumerate(self.messages)]
        return render(self.template, turns).text


conv_templates = {name: Conversation(template) for name, template in TEMPLATES.items()}
default_conversation = conv_templates["vicuna_v1"]
