"""From what users have to what the model takes: text with <image> to ids and labels, picture files to pixels.

Ids are those of the original LLaVA: the text is cut at <image>, each piece is tokenised on its own, and text
after a picture
starts with a word boundary. A picture is one placeholder per patch, so every length is known before the model
runs.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llava.constants import (
    DEFAULT_IM_END_TOKEN,
    DEFAULT_IM_START_TOKEN,
    DEFAULT_IMAGE_TOKEN,
    IGNORE_INDEX,
    IMAGE_TOKEN_INDEX,
)
from llava.errors import UsageError
from llava.images import (
    Picture,
    load_image,
    load_image_processor,
    prepare_picture,
    process_image,
    process_images,
)
from llava.rendering import (
    Rendered,
    SeparatorStyle,
    Template,
    Turn,
    render,
    render_caption,
    render_old_layout,
)
from llava.tokenizer import control_ids, encode_as_text, encode_with_offsets, starts_with_bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

__all__ = [
    "Encoded",
    "Picture",
    "encode_question",
    "encode_sample",
    "expand_image_tokens",
    "load_image",
    "load_image_processor",
    "prepare_picture",
    "process_image",
    "process_images",
    "tokenizer_image_token",
]


@dataclass(frozen=True)
class Encoded:
    """Ids with one placeholder per patch, labels (the id where it is learned, else `IGNORE_INDEX`), of equal
    length.

    `prefix_length` counts the tokens up to and including the last picture's last patch, 0 without a picture.
    """

    input_ids: list[int]
    labels: list[int]
    prefix_length: int
    num_images: int


def picture_mark(*, start_end: bool) -> str:
    """How a picture is written: <image>, between its start and end tokens if the model was trained so."""
    if start_end:
        return DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN
    return DEFAULT_IMAGE_TOKEN


def pictures_to_front(text: str, version: str, *, start_end: bool = False) -> str:
    """<image> anywhere in a turn, once or more, becomes one at its start, on a line of its own (as the
    original does); within <Image></Image> when the template's version is an mmtag.
    """
    if DEFAULT_IMAGE_TOKEN not in text:
        return text
    rest = text.replace(DEFAULT_IMAGE_TOKEN, "").strip()
    mark = picture_mark(start_end=start_end)
    if "mmtag" in version:
        mark = f"<Image>{mark}</Image>"
    return f"{mark}\n{rest}".strip()


def encode_sample(
    turns: Sequence[Turn],
    template: Template,
    tokenizer: "PreTrainedTokenizerFast",
    *,
    num_patches: int,
    max_length: int | None,
    has_image: bool = True,
    start_end: bool = False,
) -> Encoded:
    """Ids and labels of a training conversation. An empty text is an open turn, as in the original.

    Args:
        turns: (`human` or `gpt`, text), alternating, human first.
        num_patches: placeholders per picture.
        max_length: most tokens; later ones are cut, never those of a picture (`UsageError`). Targets may be
        cut off.
        has_image: False takes <image> for ordinary text, as in a row without a picture.
        start_end: pictures stand between <im_start> and <im_end> (`mm_use_im_start_end`).

    `</s>` and other control tokens within a text of one's own data are those tokens, as in the original;
    which tokens are targets does not depend on them.
    """
    if has_image:
        turns = [
            (role, text and pictures_to_front(text, template.version, start_end=start_end))
            for role, text in turns
        ]
    rendered = render_for_training(template, turns)
    encoded = encode_rendered(
        rendered, tokenizer, num_patches=num_patches, has_image=has_image, controls_in_text=True
    )
    return encoded if max_length is None else cut(encoded, max_length)


def render_for_training(template: Template, turns: Sequence[Turn]) -> Rendered:
    """The text that the original trains on. (A first question that is empty makes it fail under LLaMA-2's
    template; ours asks nothing there.)
    """
    if template.style is SeparatorStyle.PLAIN:
        return caption_of(template, turns)
    if template.style is SeparatorStyle.SINGLE:
        return render_old_layout(template, turns)
    opened = [(role, text or None) for role, text in turns]
    if template.style is SeparatorStyle.LLAMA_2:
        opened[:1] = turns[:1]
    return render(template, opened)


def caption_of(template: Template, turns: Sequence[Turn]) -> Rendered:
    """The projector stage's text: the question is dropped. `UsageError` unless there is one question and one
    caption.
    """
    if len(turns) != 2 or turns[1][1] is None:
        raise UsageError(
            f"the template {template.name!r} takes one question and one caption, but this conversation has "
            f"{len(turns)} turns; use --version v1 for conversations."
        )
    return render_caption(template, turns[1][1])


def encode_question(
    text: str,
    template: Template,
    tokenizer: "PreTrainedTokenizerFast",
    *,
    num_patches: int,
    has_image: bool,
    start_end: bool = False,
) -> Encoded:
    """Ids of a question with an open answer, its picture before it; nothing is a target.

    `start_end` puts tokens around the picture (the configuration's mm_use_im_start_end). What looks like a
    control token (`</s>`) in the question is text: a question cannot end itself and begin another turn.
    """
    question = f"{picture_mark(start_end=start_end)}\n{text}" if has_image else text
    rendered = render(template, [("human", question), ("gpt", None)])
    return encode_rendered(rendered, tokenizer, num_patches=num_patches, has_image=has_image)


def encode_rendered(
    rendered: Rendered,
    tokenizer: "PreTrainedTokenizerFast",
    *,
    num_patches: int | Sequence[int],
    has_image: bool,
    controls_in_text: bool = False,
) -> Encoded:
    """Tokenise each piece between pictures once; a token is a target when it begins within an answer's
    span. `num_patches` is one number for all pictures, or one for each.

    Control tokens come from the template only: `</s>` and the like in what the two sides wrote is text,
    unless `controls_in_text` takes it as the original does.
    """
    pieces = rendered.text.split(DEFAULT_IMAGE_TOKEN) if has_image else [rendered.text]
    counts = [num_patches] * (len(pieces) - 1) if isinstance(num_patches, int) else list(num_patches)
    if len(counts) != len(pieces) - 1:
        raise UsageError(f"the text has {len(pieces) - 1} <image>, but {len(counts)} pictures came.")
    starts = [start for start, _ in rendered.answer_spans]
    ids = [tokenizer.bos_token_id] if starts_with_bos(tokenizer) else []
    labels = [IGNORE_INDEX] * len(ids)
    place, prefix_length = 0, 0
    said = () if controls_in_text else rendered.said
    strangers = ControlTokens(tokenizer, said, control_ids(tokenizer) if said else frozenset())
    for number, piece in enumerate(pieces):
        if number:
            ids += [IMAGE_TOKEN_INDEX] * counts[number - 1]
            labels += [IGNORE_INDEX] * counts[number - 1]
            prefix_length = len(ids)
            place += len(DEFAULT_IMAGE_TOKEN)
        around = (number > 0, number < len(pieces) - 1)
        for token, start in strangers.as_text(piece, place, around_picture=around):
            span = bisect_right(starts, place + start) - 1
            learned = span >= 0 and place + start < rendered.answer_spans[span][1]
            ids.append(token)
            labels.append(token if learned else IGNORE_INDEX)
        place += len(piece)
    return Encoded(ids, labels, prefix_length, len(pieces) - 1)


@dataclass(frozen=True)
class ControlTokens:
    """Turns the names of control tokens within `said` spans back into text."""

    tokenizer: "PreTrainedTokenizerFast"
    said: Sequence[tuple[int, int]]
    controls: frozenset[int]

    def as_text(
        self, piece: str, place: int, *, around_picture: tuple[bool, bool]
    ) -> Iterator[tuple[int, int]]:
        """(id, start) of a piece's tokens; the piece begins at `place` of the rendered text.

        `around_picture`: whether a picture stands before and behind it, whose start and end tokens are ours.
        """
        for token, (start, end) in zip(*encode_with_offsets(self.tokenizer, piece), strict=True):
            is_ours = (around_picture[0] and piece[:end] == DEFAULT_IM_END_TOKEN) or (
                around_picture[1] and piece[start:] == DEFAULT_IM_START_TOKEN
            )
            if token not in self.controls or is_ours or not self.is_said(place + start):
                yield token, start
                continue
            for part in encode_as_text(self.tokenizer, piece[start:end]):
                yield part, start

    def is_said(self, place: int) -> bool:
        """Whether one of the two sides wrote the letter there."""
        span = bisect_right(self.said, place, key=lambda one: one[0]) - 1
        return span >= 0 and place < self.said[span][1]


def cut(encoded: Encoded, max_length: int) -> Encoded:
    """The first `max_length` tokens; `UsageError` when a picture does not fit whole."""
    if len(encoded.input_ids) <= max_length:
        return encoded
    if encoded.prefix_length > max_length:
        raise UsageError(
            f"the tokens up to the last picture are {encoded.prefix_length}, more than the {max_length} of a "
            "sample; raise --model_max_length."
        )
    return Encoded(
        encoded.input_ids[:max_length], encoded.labels[:max_length], encoded.prefix_length, encoded.num_images
    )


def expand_image_tokens(input_ids: Sequence[int], num_patches: int) -> list[int]:
    """One placeholder per picture to one per patch."""
    expanded: list[int] = []
    for token in input_ids:
        expanded += [token] * (num_patches if token == IMAGE_TOKEN_INDEX else 1)
    return expanded


def tokenizer_image_token(
    prompt: str,
    tokenizer: "PreTrainedTokenizerFast",
    image_token_index: int = IMAGE_TOKEN_INDEX,
    return_tensors: str | None = None,
) -> object:
    """The original's function: ids of a prompt with one `image_token_index` per <image>; a list, or a tensor
    for `pt`.
    """
    pieces = [list(tokenizer(piece)["input_ids"]) for piece in prompt.split(DEFAULT_IMAGE_TOKEN)]
    has_bos = bool(pieces[0]) and pieces[0][0] == tokenizer.bos_token_id
    ids = list(pieces[0])
    for piece in pieces[1:]:
        ids.append(image_token_index)
        ids += piece[1:] if has_bos else piece
    if return_tensors is None:
        return ids
    if return_tensors != "pt":
        raise ValueError(f"return_tensors is {return_tensors!r}; only 'pt' and None are known.")
    import torch

    return torch.tensor(ids, dtype=torch.long)
