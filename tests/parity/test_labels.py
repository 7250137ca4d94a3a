"""Ids and labels of training conversations equal the original's, where the original does not give up."""

from collections import Counter

import pytest

from llava.conversation import TEMPLATES
from llava.processing import encode_sample, tokenizer_image_token
from tests.parity.golden import golden, golden_tokenizer, spans_of

VERSIONS = ("v1", "llava_v1", "v0", "plain", "llava_llama_2", "mistral_instruct")
"""`v0` is the flag: the original trains the layout of v1 under it. The old layout and start/end tokens come
later.
"""

BETTER = {"whitespace/empty_answer", "whitespace/empty_question"}
"""The original takes an empty text for an open turn and leaves out what follows; ours is an empty question or
answer.
"""

CAPTION_WITH_MARK = "plain/caption_with_token"
"""The original makes a placeholder inside a caption a target; a placeholder is never one here."""


def cases() -> list[tuple[dict, dict]]:
    """(sample, result) of the versions above, less those that raise."""
    data = golden("preprocess/preprocess.json")
    samples = {sample["case"]: sample for sample in data["samples"]}
    return [
        (samples[result["case"]], result)
        for result in data["results"]
        if result["version"] in VERSIONS
        and result["tokenizer"] in ("nonlegacy", "legacy")
        and not result.get("error")
    ]


def encode(sample: dict, result: dict) -> tuple[list[int], list[int]]:
    """Our ids and labels for a golden case."""
    turns = [(turn["from"], turn["value"]) for turn in sample["conversations"]]
    turns = turns[1:] if turns[0][0] == "gpt" else turns
    template = TEMPLATES["v1" if result["version"] == "v0" else result["version"]]
    has_image = sample["image"] or result["version"] == "plain"
    encoded = encode_sample(
        turns,
        template,
        golden_tokenizer(result["tokenizer"]),
        num_patches=1,
        max_length=None if has_image else result["model_max_length"],
        has_image=has_image,
    )
    return encoded.input_ids, encoded.labels


def test_ids_and_labels_equal_the_original() -> None:
    outcome: Counter[str] = Counter()
    for sample, result in cases():
        name = (result["version"], result["tokenizer"], result["case"], result["model_max_length"])
        if result["case"] in BETTER:
            outcome["better"] += 1
            continue
        ids, labels = encode(sample, result)
        assert ids == result["input_ids"], name
        if result.get("warning"):
            outcome["original gave up"] += 1
            answered = any(turn["from"] == "gpt" for turn in sample["conversations"][1:])
            whole = result["model_max_length"] >= len(ids)
            assert spans_of(labels) or not whole or not answered, name
        elif result["case"] != CAPTION_WITH_MARK:
            outcome["equal"] += 1
            assert spans_of(labels) == result["supervised_spans"], name
    assert outcome["equal"] >= 150, outcome
    assert outcome["original gave up"] >= 20, outcome


@pytest.mark.parametrize("tokenizer", ["nonlegacy", "legacy"])
def test_empty_answers_are_answers(tokenizer: str) -> None:
    turns = [("human", "Say nothing."), ("gpt", "")]
    encoded = encode_sample(
        turns, TEMPLATES["v1"], golden_tokenizer(tokenizer), num_patches=1, max_length=None
    )
    assert encoded.input_ids[-1] == encoded.labels[-1] == 2
    assert spans_of(encoded.labels)[0][1] == len(encoded.labels)


def test_image_token_ids_equal_the_original() -> None:
    compared = 0
    for case in golden("tokenize/image_token.json")["cases"]:
        if case["tokenizer"] in ("nonlegacy", "legacy", "imse"):
            tokenizer = golden_tokenizer(case["tokenizer"])
            assert tokenizer_image_token(case["prompt"], tokenizer) == case["ids"], case["prompt"]
            assert tokenizer(case["prompt"])["input_ids"] == case["plain_ids"], case["prompt"]
            compared += 1
    assert compared > 70
