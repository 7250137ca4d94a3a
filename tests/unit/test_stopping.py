"""Decoding stops at keywords, with the installed `generate`, row by row, in both calling forms."""

import pytest
import torch

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.mm_utils import KeywordsStoppingCriteria
from llava.model.llava import LlavaForCausalLM
from tests.parity.golden import golden_tokenizer
from tests.tiny import picture, tiny_config

TOKENIZER = golden_tokenizer("nonlegacy")
STEPS = 24
UNUSED = 999
"""An end token that is never drawn here; `generate` pads rows that are done only when there is one."""


def talking_model() -> LlavaForCausalLM:
    """A random model with the golden tokenizer's vocabulary."""
    torch.manual_seed(3)
    config = tiny_config()
    config.text_config.vocab_size = len(TOKENIZER)
    model = LlavaForCausalLM._from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
    return model.eval()


def decode_with(
    model: LlavaForCausalLM, prompts: torch.Tensor, keyword: str | None, **kwargs
) -> list[list[int]]:
    """New ids of each row, greedy, up to STEPS."""
    criteria = [] if keyword is None else [KeywordsStoppingCriteria([keyword], TOKENIZER, prompts)]
    output = model.generate(
        prompts,
        do_sample=False,
        max_new_tokens=STEPS,
        pad_token_id=0,
        eos_token_id=UNUSED,
        stopping_criteria=criteria,
        **kwargs,
    )
    return output.tolist()


def steps_until(ids: list[int], keyword: str) -> int:
    """The slow way: the first number of new tokens whose whole text holds the keyword, or all of them."""
    texts = [TOKENIZER.decode(ids[:end], skip_special_tokens=True) for end in range(1, len(ids) + 1)]
    return next((end for end, text in enumerate(texts, 1) if keyword in text), len(ids))


@pytest.mark.parametrize("with_picture", [False, True])
def test_generate_stops_each_row_at_its_keyword(with_picture: bool) -> None:
    model = talking_model()
    mark = [IMAGE_TOKEN_INDEX] if with_picture else []
    prompts = torch.tensor([[1, 292, *mark, 638], [1, 349, *mark, 941]])
    kwargs = {"images": torch.stack([picture("a"), picture("b")])} if with_picture else {}
    free = decode_with(model, prompts, None, **kwargs)
    assert all(len(ids) == STEPS and UNUSED not in ids for ids in free)
    stops = []
    for place in range(3, STEPS, 4):
        keyword = TOKENIZER.decode(free[0][place : place + 2]).strip()
        wanted = [steps_until(ids, keyword) for ids in free]
        found = decode_with(model, prompts, keyword, **kwargs)
        for ids, alone, steps in zip(found, free, wanted, strict=True):
            assert ids[:steps] == alone[:steps]
            assert not any(ids[steps:]), "padding behind the keyword"
            assert len(ids) == max(wanted)
        stops += wanted
    assert min(stops) < STEPS == max(stops), "some rows must stop early, and some not"


def test_a_prompt_with_the_keyword_does_not_stop() -> None:
    prompt = torch.tensor([TOKENIZER("a ### b ###")["input_ids"]])
    criteria = KeywordsStoppingCriteria(["###"], TOKENIZER, prompt)
    more = torch.tensor([TOKENIZER(" go", add_special_tokens=False)["input_ids"]])
    assert criteria(torch.cat([prompt, more], dim=1), None).tolist() == [False]
    end = torch.tensor([TOKENIZER("on###", add_special_tokens=False)["input_ids"]])
    done = criteria(torch.cat([prompt, more, end], dim=1), None)
    assert (done.dtype, done.tolist()) == (torch.bool, [True])
    assert bool(done), "old code asks a batch of one for its truth"


def test_special_tokens_stop_by_their_ids() -> None:
    """The text of an answer has none."""
    prompt = torch.tensor([[1, 292]])
    criteria = KeywordsStoppingCriteria(["</s>"], TOKENIZER, prompt)
    assert criteria(torch.tensor([[1, 292, 638, 2]]), None).tolist() == [True]
    assert criteria(torch.tensor([[1, 292, 2, 638]]), None).tolist() == [False]


@pytest.mark.parametrize("answer", ["so it is. ###", "so###", "so #", "猫###", "é ###\n"])
def test_a_keyword_is_found_however_it_is_cut_into_tokens(answer: str) -> None:
    """`###` alone begins with a word boundary; within a text it does not. New ids only, as with pictures."""
    prompt = torch.tensor([[1, 292, IMAGE_TOKEN_INDEX, 638]])
    ids = torch.tensor([TOKENIZER(answer, add_special_tokens=False)["input_ids"]])
    criteria = KeywordsStoppingCriteria(["###"], TOKENIZER, prompt)
    assert criteria(ids, None).tolist() == ["###" in answer]


def test_no_new_ids_and_no_keywords_stop_nothing() -> None:
    prompt = torch.tensor([[1, 292]])
    assert KeywordsStoppingCriteria(["x"], TOKENIZER, prompt)(prompt, None).tolist() == [False]
    assert KeywordsStoppingCriteria([], TOKENIZER, prompt)(prompt, None).tolist() == [False]


def test_an_empty_keyword_is_refused() -> None:
    with pytest.raises(UsageError, match="hold an empty text; leave it out"):
        KeywordsStoppingCriteria(["a", ""], TOKENIZER, torch.tensor([[1]]))


def test_placeholders_among_the_ids_are_no_text() -> None:
    criteria = KeywordsStoppingCriteria(["###"], TOKENIZER, torch.tensor([[1, IMAGE_TOKEN_INDEX]]))
    expanded = [1, IMAGE_TOKEN_INDEX, IMAGE_TOKEN_INDEX, 638]
    assert criteria(torch.tensor([expanded[1:]]), None).tolist() == [False]
