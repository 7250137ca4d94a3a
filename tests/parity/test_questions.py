"""Ids of the questions behind the golden greedy answers, by the original's names and by ours."""

import pytest

from llava.constants import DEFAULT_IM_END_TOKEN, DEFAULT_IM_START_TOKEN, DEFAULT_IMAGE_TOKEN
from llava.conversation import TEMPLATES, conv_templates
from llava.mm_utils import tokenizer_image_token
from llava.processing import encode_question
from tests.parity.golden import golden, golden_tokenizer

GREEDY = golden("generate/greedy.json")
BASE = "llava-v1.5-tiny"
TOKENIZER_OF = {
    BASE: "nonlegacy",
    "llava-v1.5-tiny-linear": "legacy",
    "llava-v1.5-tiny-imse": "imse",
    "llava-v1.5-tiny-pretrain": "nonlegacy",
    "llava-v1.5-tiny-lora": "nonlegacy",
}


def names_of(row: dict) -> list[str]:
    """The pictures of a row, which names none, one or several."""
    images = row["images"]
    return [] if images is None else [images] if isinstance(images, str) else list(images)


def wanted_ids(row: dict) -> list[int]:
    """The golden ids, left out where they are those of the base model's row."""
    if "prompt_ids" in row:
        return row["prompt_ids"]
    keys = ("images", "question", "conv_mode")
    same = [base for base in GREEDY[BASE] if all(base.get(key) == row.get(key) for key in keys)]
    return same[0]["prompt_ids"]


def rows() -> list:
    """(model, row) of every golden answer."""
    return [
        pytest.param(model, row, id=f"{model}-{number}")
        for model, answers in GREEDY.items()
        for number, row in enumerate(answers)
    ]


@pytest.mark.parametrize(("model", "row"), rows())
def test_a_client_that_builds_the_prompt_gets_the_same_ids(model: str, row: dict) -> None:
    imse = model.endswith("imse")
    mark = (
        DEFAULT_IM_START_TOKEN + DEFAULT_IMAGE_TOKEN + DEFAULT_IM_END_TOKEN if imse else DEFAULT_IMAGE_TOKEN
    )
    tokenizer = golden_tokenizer(TOKENIZER_OF[model])
    conversation = conv_templates[row["conv_mode"]].copy()
    conversation.messages = []
    conversation.append_message(conversation.roles[0], f"{mark}\n" * len(names_of(row)) + row["question"])
    conversation.append_message(conversation.roles[1], None)
    assert tokenizer_image_token(conversation.get_prompt(), tokenizer) == wanted_ids(row)


def test_our_questions_have_the_same_ids() -> None:
    """Rows with several pictures are left out: a question of ours has one at most."""
    compared = several = 0
    for model, answers in GREEDY.items():
        for row in answers:
            if len(names_of(row)) > 1:
                several += 1
                continue
            encoded = encode_question(
                row["question"],
                TEMPLATES[row["conv_mode"]],
                golden_tokenizer(TOKENIZER_OF[model]),
                num_patches=1,
                has_image=bool(names_of(row)),
                start_end=model.endswith("imse"),
            )
            assert encoded.input_ids == wanted_ids(row), (model, row["question"])
            compared += 1
    print(f"{several} rows not compared: several pictures")  # noqa: T201
    assert compared + several == sum(map(len, GREEDY.values()))
    assert compared > 70
