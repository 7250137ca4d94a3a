"""From what users have to what the model takes: text with <image> to ids and labels, picture files to pixels.

Ids are those of the original LLaVA: the text is cut at <image>, each piece is tokenised on its own, and text
after a picture
starts with a word boundary. A picture is one placeholder per patch, so every length is known before the model
runs.
"""

from bisect import bisect_right
from collections.abc import Sequence
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
from llava.tokenizer import encode_with_offsets, starts_with_bos

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
    """
    if has_image:
        turns = [
            (role, text and pictures_to_front(text, template.version, start_end=start_end))
            for role, text in turns
        ]
    rendered = render_for_training(template, turns)
    encoded = encode_rendered(rendered, tokenizer, num_patches=num_patches, has_image=has_image)
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

    `start_end` puts tokens around the picture (the configuration's mm_use_im_start_end).
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
) -> Encoded:
    """Tokenise each piece between pictures once; a token is a target when it begins within an answer's
    span. `num_patches` is one number for all pictures, or one for each.
    """
    pieces = rendered.text.split(DEFAULT_IMAGE_TOKEN) if has_image else [rendered.text]
    counts = [num_patches] * (len(pieces) - 1) if isinstance(num_patches, int) else list(num_patches)
    if len(counts) != len(pieces) - 1:
        raise UsageError(f"the text has {len(pieces) - 1} <image>, but {len(counts)} pictures came.")
    starts = [start for start, _ in rendered.answer_spans]
    ids = [tokenizer.bos_token_id] if starts_with_bos(tokenizer) else []
    labels = [IGNORE_INDEX] * len(ids)
    place, prefix_length = 0, 0
    for number, piece in enumerate(pieces):
        if number:
            ids += [IMAGE_TOKEN_INDEX] * counts[number - 1]
            labels += [IGNORE_INDEX] * counts[number - 1]
            prefix_length = len(ids)
            place += len(DEFAULT_IMAGE_TOKEN)
        for token, (start, _) in zip(*encode_with_offsets(tokenizer, piece), strict=True):
            span = bisect_right(starts, place + start) - 1
            learned = span >= 0 and place + start < rendered.answer_spans[span][1]
            ids.append(token)
            labels.append(token if learned else IGNORE_INDEX)
        place += len(piece)
    return Encoded(ids, labels, prefix_length, len(pieces) - 1)


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
