"""Greedy and beam answers of the golden models: prompts, ids and text equal the original's."""

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import TEMPLATES, render
from llava.processing import encode_question, tokenizer_image_token
from llava.tokenizer import REPLACEMENT, decode_text
from tests.parity.golden import golden, golden_pixels, open_shared

GREEDY = golden("generate/greedy.json")
CASES = [(name, number) for name, cases in GREEDY.items() for number in range(len(cases))]
MIN_MARGIN = 5e-4  # least distance of the best two logits at a step (7.9e-4 here); logits agree within 2e-5
MAX_NEW_TOKENS = 24


def prompt_of(name: str, number: int) -> tuple[list[int], str]:
    """The golden prompt's ids (stored once where models share them), and its text in our words."""
    case = GREEDY[name][number]
    ids = case.get("prompt_ids") or GREEDY["llava-v1.5-tiny"][number]["prompt_ids"]
    _, model, _, _ = open_shared(name)
    mark = "<im_start><image><im_end>" if model.config.mm_use_im_start_end else "<image>"
    question = f"{mark}\n" * ids.count(IMAGE_TOKEN_INDEX) + case["question"]
    return ids, render(TEMPLATES[case["conv_mode"]], [("human", question), ("gpt", None)]).text


@pytest.mark.parametrize(("name", "number"), CASES)
def test_prompts_are_equal(name: str, number: int) -> None:
    ids, text = prompt_of(name, number)
    assert tokenizer_image_token(text, open_shared(name)[0]) == ids


def test_prompts_of_the_answer_command_are_equal() -> None:
    """Questions with one picture or none, one placeholder per picture; tokens around it where they belong."""
    seen = set()
    for name, number in CASES:
        case = GREEDY[name][number]
        if isinstance(case["images"], list):
            continue
        tokenizer, model, _, _ = open_shared(name)
        encoded = encode_question(
            case["question"],
            TEMPLATES[case["conv_mode"]],
            tokenizer,
            num_patches=1,
            has_image=case["images"] is not None,
            start_end=model.config.mm_use_im_start_end,
        )
        assert encoded.input_ids == prompt_of(name, number)[0]
        seen.add((case["images"] is None, model.config.mm_use_im_start_end))
    assert len(seen) == 4, "with and without a picture, with and without tokens around it"


@pytest.mark.parametrize(("name", "number"), CASES)
def test_answers_are_equal(name: str, number: int) -> None:
    case = GREEDY[name][number]
    tokenizer, model, processor, _ = open_shared(name)
    if case["images"] is None:
        images = None
    else:
        names = case["images"] if isinstance(case["images"], list) else [case["images"]]
        images = golden_pixels(names, processor, model.config.image_aspect_ratio)
    assert case.get("min_top1_margin", 1) > MIN_MARGIN, "a tie could break the other way"
    ids = torch.tensor([prompt_of(name, number)[0]])
    found = model.generate(
        ids,
        images=images,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=case.get("num_beams", 1),
        max_new_tokens=MAX_NEW_TOKENS,
    )
    new = found[0]
    assert new.tolist() == case["new_ids"]
    assert (new[-1].item() == tokenizer.eos_token_id) == case["ended_with_eos"]
    assert decode_text(tokenizer, new.tolist()).strip() == case["text"].strip()


def test_some_texts_hold_bytes_that_are_no_text() -> None:
    """They show that bytes are decoded as by SentencePiece, see `decode_text`."""
    found = {name for name, cases in GREEDY.items() for case in cases if REPLACEMENT in case["text"]}
    assert found == {"llava-v1.5-tiny-pretrain"}
