"""Conversation templates as data, and the original LLaVA's names for code that builds prompts turn by turn.

`render` (from `llava.rendering`) is what this package uses. `Conversation`, `SeparatorStyle`,
`conv_templates` and `default_conversation` are the original's; they give the same text. Importing this module
needs no torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from llava.chat_images import as_base64, fit_for_chat
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.errors import UsageError
from llava.rendering import Rendered, SeparatorStyle, Template, Turn, render, render_named

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "TEMPLATES",
    "Conversation",
    "Rendered",
    "SeparatorStyle",
    "Template",
    "Turn",
    "conv_templates",
    "default_conversation",
    "render",
    "training_template",
]

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


TRAINED_AS = {"v0": "v1", "v0.5": "v1"}
"""Values of the original's --version that train another layout than their name says."""
VERSIONS = sorted({*TEMPLATES, *TRAINED_AS})


def training_template(version: str) -> Template:
    """The template that a --version trains. `UsageError` for an unknown one, where the original takes v1."""
    if version not in VERSIONS:
        raise UsageError(f"--version is {version!r}; known templates: {', '.join(VERSIONS)}")
    return TEMPLATES[TRAINED_AS.get(version, version)]


Message = str | tuple[str, "Image", str] | None
"""A text, a text with a picture and how to fit it (see `fit_for_chat`), or None while it is open."""


@dataclass
class Conversation:
    """The original's growing conversation: append messages, then ask for the prompt.

    `messages` are [role, message] pairs, the first `offset` of them canned examples that no chat shows. A
    message is a text, None (an open turn, as is an empty text), or (text, picture, mode).
    """

    system: str
    roles: Sequence[str]
    messages: list[list]
    offset: int
    sep_style: SeparatorStyle = SeparatorStyle.SINGLE
    sep: str = "###"
    sep2: str | None = None
    version: str = "Unknown"
    skip_next: bool = False

    def append_message(self, role: str, message: Message) -> None:
        """Add a turn; None leaves it open."""
        self.messages.append([role, message])

    def copy(self) -> "Conversation":
        """An independent conversation with the same turns; `skip_next`, a demo's mark, is not copied."""
        messages = [[role, message] for role, message in self.messages]
        return replace(self, messages=messages, skip_next=False)

    def get_prompt(self) -> str:
        """The text so far. A picture in the first message becomes <image> before its text, in the mmtag
        versions an exchange of its own; pictures of later messages are not written.
        """
        turns = [(str(role), text_of(message) or None) for role, message in self.messages]
        if self.messages and isinstance(self.messages[0][1], tuple):
            turns = self._with_picture(turns)
        roles = (self.roles[0], self.roles[1])
        template = Template("", self.sep_style, self.system, roles, self.sep, self.sep2, self.version)
        return render_named(template, turns).text

    def _with_picture(self, turns: list[Turn]) -> list[Turn]:
        """Turns with the first message's picture written down."""
        (role, text), *others = turns
        question = (text or "").replace(DEFAULT_IMAGE_TOKEN, "").strip()
        if "mmtag" not in self.version:
            return [(role, f"{DEFAULT_IMAGE_TOKEN}\n{question}"), *others]
        shown = (self.roles[0], f"<Image>{DEFAULT_IMAGE_TOKEN}</Image>")
        return [shown, (self.roles[1], "Received."), (role, question or None), *others]

    def process_image(
        self,
        image: "Image",
        image_process_mode: str,
        return_pil: bool = False,
        image_format: str = "PNG",
        max_len: int = 1344,
        min_len: int = 672,
    ) -> "Image | str":
        """A picture as a chat sends it (see `fit_for_chat`): Pillow's, or its file as base64 text."""
        fitted = fit_for_chat(image, image_process_mode, max_len=max_len, min_len=min_len)
        return fitted if return_pil else as_base64(fitted, image_format)

    def get_images(self, return_pil: bool = False) -> list:
        """The pictures of the user's messages, behind the canned ones, as `process_image` gives them."""
        return [
            self.process_image(message[1], message[2], return_pil=return_pil)
            for _, message in self.messages[self.offset :][::2]
            if isinstance(message, tuple)
        ]

    def to_gradio_chatbot(self) -> list[list[str | None]]:
        """[question, answer] pairs for gradio's chatbot; a picture is an HTML image before its question."""
        pairs: list[list[str | None]] = []
        for number, (_, message) in enumerate(self.messages[self.offset :]):
            text = text_of(message)
            if number % 2:
                pairs[-1][1] = text
                continue
            if isinstance(message, tuple):
                data = self.process_image(message[1], "Default", image_format="JPEG")
                shown = f'<img src="data:image/jpeg;base64,{data}" alt="user upload image" />'
                text = shown + message[0].replace(DEFAULT_IMAGE_TOKEN, "").strip()
            pairs.append([text, None])
        return pairs

    def dict(self) -> Mapping[str, object]:
        """What a log keeps: texts without pictures."""
        return {
            "system": self.system,
            "roles": self.roles,
            "messages": [[role, text_of(message)] for role, message in self.messages],
            "offset": self.offset,
            "sep": self.sep,
            "sep2": self.sep2,
        }


def text_of(message: Message) -> str | None:
    """A message's text without its picture."""
    return message[0] if isinstance(message, tuple) else message


CANNED_QUESTION = "What are the key differences between renewable and non-renewable energy sources?"
CANNED_ANSWER = (
    "Renewable energy sources are those that can be replenished naturally in a relatively short "
    "amount of time, such as solar, wind, hydro, geothermal, and biomass. Non-renewable energy "
    "sources, on the other hand, are finite and will eventually be depleted, such as coal, oil, "
    "and natural gas. Here are some key differences between renewable and non-renewable energy "
    "sources:\n"
    "1. Availability: Renewable energy sources are virtually inexhaustible, while non-renewable "
    "energy sources are finite and will eventually run out.\n"
    "2. Environmental impact: Renewable energy sources have a much lower environmental impact "
    "than non-renewable sources, which can lead to air and water pollution, greenhouse gas "
    "emissions, and other negative effects.\n"
    "3. Cost: Renewable energy sources can be more expensive to initially set up, but they "
    "typically have lower operational costs than non-renewable sources.\n"
    "4. Reliability: Renewable energy sources are often more reliable and can be used in more "
    "remote locations than non-renewable sources.\n"
    "5. Flexibility: Renewable energy sources are often more flexible and can be adapted to "
    "different situations and needs, while non-renewable sources are more rigid and inflexible.\n"
    "6. Sustainability: Renewable energy sources are more sustainable over the long term, while "
    "non-renewable sources are not, and their depletion can lead to economic and social "
    "instability.\n"
)


def start_of(template: Template) -> Conversation:
    """A conversation to copy; the one of `v0` begins with an example exchange."""
    messages = []
    if template is V0:
        messages = [[V0.roles[0], CANNED_QUESTION], [V0.roles[1], CANNED_ANSWER]]
    return Conversation(
        system=template.system,
        roles=template.roles,
        messages=messages,
        offset=len(messages),
        sep_style=template.style,
        sep=template.sep,
        sep2=template.sep2,
        version=template.version,
    )


STARTS = {template.name: start_of(template) for template in TEMPLATES.values()}
conv_templates = {name: STARTS[template.name] for name, template in TEMPLATES.items()}
default_conversation = conv_templates["vicuna_v1"]
