"""Conversations to ids and labels: what is learned, what is cut, and where pictures stand."""

import pytest

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import TEMPLATES, SeparatorStyle, Turn
from llava.errors import UsageError
from llava.processing import (
    Encoded,
    encode_question,
    encode_sample,
    expand_image_tokens,
    tokenizer_image_token,
)
from tests.parity.golden import golden_tokenizer, spans_of

PATCHES = 5
TURNS: list[Turn] = [
    ("human", "<image>\nWho is it?"),
    ("gpt", "Mira, a cook."),
    ("human", "Sure?"),
    ("gpt", "Yes."),
]
CHATS = sorted(name for name, template in TEMPLATES.items() if template.style is not SeparatorStyle.PLAIN)


def encode(
    turns: list[Turn], name: str = "v1", tokenizer: str = "nonlegacy", max_length: int | None = None
) -> Encoded:
    """A sample with `PATCHES` tokens per picture."""
    return encode_sample(
        turns, TEMPLATES[name], golden_tokenizer(tokenizer), num_patches=PATCHES, max_length=max_length
    )


def learned(encoded: Encoded, tokenizer: str = "nonlegacy") -> list[str]:
    """The texts of the targets."""
    decode = golden_tokenizer(tokenizer).decode
    return [decode(encoded.input_ids[start:end]).strip() for start, end in spans_of(encoded.labels)]


@pytest.mark.parametrize("tokenizer", ["nonlegacy", "legacy", "imse"])
@pytest.mark.parametrize("name", CHATS)
def test_the_targets_are_the_answers(name: str, tokenizer: str) -> None:
    encoded = encode(TURNS, name, tokenizer)
    assert len(encoded.input_ids) == len(encoded.labels)
    found = [text.split(".")[0] for text in learned(encoded, tokenizer)]
    assert found == ["Mira, a cook", "Yes"]
    assert all(label in (IGNORE_INDEX, token) for token, label in zip(*arrays(encoded), strict=True))


def arrays(encoded: Encoded) -> tuple[list[int], list[int]]:
    """Ids and labels."""
    return encoded.input_ids, encoded.labels


def test_the_prefix_ends_with_the_last_patch() -> None:
    ids = (encoded := encode(TURNS)).input_ids
    assert ids.count(IMAGE_TOKEN_INDEX) == PATCHES
    assert ids[encoded.prefix_length - PATCHES : encoded.prefix_length] == [IMAGE_TOKEN_INDEX] * PATCHES
    assert encoded.num_images == 1
    text_only = encode([("human", "Hi"), ("gpt", "Hello.")])
    assert (text_only.prefix_length, text_only.num_images) == (0, 0)


def test_two_pictures() -> None:
    turns = [("human", "<image>\nWho?"), ("gpt", "Mira."), ("human", "<image>\nAnd here?"), ("gpt", "Tom.")]
    encoded = encode(turns)
    assert encoded.num_images == 2
    assert encoded.input_ids.count(IMAGE_TOKEN_INDEX) == 2 * PATCHES
    assert encoded.input_ids[encoded.prefix_length - 1] == IMAGE_TOKEN_INDEX
    assert IMAGE_TOKEN_INDEX not in encoded.input_ids[encoded.prefix_length :]
    assert learned(encoded) == ["Mira.</s>", "Tom.</s>"]


@pytest.mark.parametrize(
    "question",
    ["Who is it?\n<image>", "Who <image>is it?", "<image>Who is it?<image>", " <image> Who is it? "],
)
def test_a_picture_anywhere_in_a_turn_goes_to_its_front(question: str) -> None:
    assert encode([("human", question), *TURNS[1:]]) == encode(TURNS)


def test_plain_learns_the_caption_right_after_the_picture() -> None:
    encoded = encode([("human", "Describe it.\n<image>"), ("gpt", "a red kite")], "plain")
    assert encoded.input_ids[0] == 1
    assert encoded.prefix_length == 1 + PATCHES
    assert spans_of(encoded.labels) == [[1 + PATCHES, len(encoded.labels)]]
    assert learned(encoded) == ["a red kite"]
    with pytest.raises(UsageError, match="one question and one caption"):
        encode(TURNS, "plain")


def test_a_question_is_the_beginning_of_the_sample_that_answers_it() -> None:
    question = encode_question(
        "Who is it?", TEMPLATES["v1"], golden_tokenizer("nonlegacy"), num_patches=PATCHES, has_image=True
    )
    sample = encode(TURNS)
    length = len(question.input_ids)
    assert sample.input_ids[:length] == question.input_ids
    assert spans_of(sample.labels)[0][0] == length
    assert spans_of(question.labels) == []
    assert question.prefix_length == sample.prefix_length


def test_cutting_keeps_the_targets_before_the_cut() -> None:
    whole = encode(TURNS)
    (first, last), (start, end) = spans_of(whole.labels)
    assert encode(TURNS, max_length=end) == whole
    cut = encode(TURNS, max_length=start + 1)
    assert (cut.input_ids, cut.labels) == (whole.input_ids[: start + 1], whole.labels[: start + 1])
    assert spans_of(cut.labels) == [[first, last], [start, start + 1]]
    assert spans_of(encode(TURNS, max_length=first).labels) == []


def test_a_picture_is_never_cut() -> None:
    prefix = encode(TURNS).prefix_length
    assert encode(TURNS, max_length=prefix).input_ids[-1] == IMAGE_TOKEN_INDEX
    with pytest.raises(UsageError, match=r"raise --model_max_length"):
        encode(TURNS, max_length=prefix - 1)


def test_without_a_picture_the_mark_is_text() -> None:
    tokenizer = golden_tokenizer("nonlegacy")
    encoded = encode_sample(
        TURNS, TEMPLATES["v1"], tokenizer, num_patches=PATCHES, max_length=None, has_image=False
    )
    assert IMAGE_TOKEN_INDEX not in encoded.input_ids
    assert "<image>\nWho is it?" in tokenizer.decode(encoded.input_ids)
    assert learned(encoded) == ["Mira, a cook.</s>", "Yes.</s>"]


def test_expanding_the_original_form_gives_the_same_ids() -> None:
    prompt = "A chat. USER: <image>\nWho? ASSISTANT:"
    ids = tokenizer_image_token(prompt, golden_tokenizer("nonlegacy"))
    assert isinstance(ids, list)
    assert ids.count(IMAGE_TOKEN_INDEX) == 1
    expanded = expand_image_tokens(ids, PATCHES)
    assert expanded.count(IMAGE_TOKEN_INDEX) == PATCHES
    assert [token for token in expanded if token >= 0] == [token for token in ids if token >= 0]
