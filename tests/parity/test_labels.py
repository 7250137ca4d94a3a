"""Ids and labels of training equal the original's; where it gives up, the answers are labelled here."""

from collections import Counter

import pytest
from transformers import PreTrainedTokenizerFast

from llava.constants import IMAGE_TOKEN_INDEX
from llava.conversation import TEMPLATES, training_template
from llava.errors import UsageError
from llava.processing import encode_sample, pictures_to_front
from llava.rendering import SeparatorStyle, Template
from tests.parity.golden import golden, golden_tokenizer, spans_of

DATA = golden("preprocess/preprocess.json")
SAMPLES = {sample["case"]: sample for sample in DATA["samples"]}
MULTIMODAL = golden("preprocess/multimodal.json")["cases"]

OTHER_FILE = "ChatML's tokenizers: compared in test_chatml.py"
REFUSED = "turns that do not alternate, or other roles: the data reader names them, ids are not made"
NO_CAPTION = "plain takes one question and one caption: refused, as in the original"
DROPPED = "the first turn from gpt is dropped in every layout; the original keeps it in the old one"
NO_QUESTION = (
    "llama_2 without a first question: an error in the original; ours asks nothing and learns the answer"
)
CAPTION_WITH_MARK = "a placeholder within a caption is a target in the original; never here"
OLD_LAYOUT = "old layout: the original's labels drift by a token per turn; ours are the answers"
GAVE_UP = "the original masks the sample with a warning; ours are the answers"
TURNED_INTO_NOTHING = "every answer is empty or missing: nothing to learn in ours either"

EXPECTED = {
    "equal": 188,
    OTHER_FILE: 26,
    REFUSED: 15,
    NO_CAPTION: 2,
    DROPPED: 4,
    NO_QUESTION: 1,
    CAPTION_WITH_MARK: 2,
    OLD_LAYOUT: 54,
    GAVE_UP: 22,
    TURNED_INTO_NOTHING: 10,
}


def turns_of(sample: dict) -> list[tuple[str, str]]:
    """(role, text) as the data reader hands them over: a first turn from gpt is dropped."""
    turns = [(turn["from"], turn["value"]) for turn in sample["conversations"]]
    return turns[1:] if turns[0][0] == "gpt" else turns


def learned_texts(ids: list[int], labels: list[int], tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The texts of the label spans, without separators and special tokens."""
    texts = [tokenizer.decode(ids[start:end], skip_special_tokens=True) for start, end in spans_of(labels)]
    return [text.strip() for text in texts]


def wanted_texts(sample: dict, template: Template, tokenizer: PreTrainedTokenizerFast) -> list[str]:
    """The answers as text, through the tokenizer (which drops special tokens written in them)."""
    wanted = []
    for role, text in turns_of(sample):
        if role == "gpt" and (text or template.style is SeparatorStyle.SINGLE):
            text = pictures_to_front(text, template.version) if sample["image"] else text
            if template.style is SeparatorStyle.SINGLE:
                text = f"{text}\n###"
            ids = tokenizer(text, add_special_tokens=False)["input_ids"]
            wanted.append(tokenizer.decode(ids, skip_special_tokens=True).strip())
    return wanted


def encode(sample: dict, result: dict, template: Template) -> tuple[list[int], list[int], bool]:
    """Our ids and labels for a golden case, and whether nothing was cut off."""
    has_image = sample["image"] or template.style is SeparatorStyle.PLAIN
    max_length = None if has_image else result["model_max_length"]
    encoded = encode_sample(
        turns_of(sample),
        template,
        golden_tokenizer(result["tokenizer"]),
        num_patches=1,
        max_length=max_length,
        has_image=has_image,
        start_end=result["tokenizer"] == "imse",
    )
    return encoded.input_ids, encoded.labels, max_length is None or len(encoded.input_ids) < max_length


def check(sample: dict, result: dict) -> str:
    """Compare one golden result; what came of it."""
    if result["tokenizer"].endswith("+chatml"):
        return OTHER_FILE
    template = training_template(result["version"])
    roles = [role for role, _ in turns_of(sample)]
    if roles != [("human", "gpt")[number % 2] for number in range(len(roles))]:
        with pytest.raises(UsageError, match="alternate"):
            encode(sample, result, template)
        return REFUSED
    if template.style is SeparatorStyle.PLAIN and len(roles) != 2:
        with pytest.raises(UsageError, match="one question and one caption"):
            encode(sample, result, template)
        return NO_CAPTION
    return compare(sample, result, template)


def compare(sample: dict, result: dict, template: Template) -> str:
    """Ids and labels of a case that ours encodes."""
    ids, labels, whole = encode(sample, result, template)
    old = template.style is SeparatorStyle.SINGLE
    if old and sample["conversations"][0]["from"] == "gpt":
        assert ids != result["input_ids"]
        return DROPPED
    tokenizer = golden_tokenizer(result["tokenizer"])
    learned, wanted = learned_texts(ids, labels, tokenizer), wanted_texts(sample, template, tokenizer)
    if "error" in result:
        assert sample["case"] == "whitespace/empty_question"
        assert learned == wanted
        return NO_QUESTION
    assert ids == result["input_ids"]
    if result["case"] == "plain/caption_with_token":
        assert all(label != IMAGE_TOKEN_INDEX for label in labels)
        return CAPTION_WITH_MARK
    if not old and not result.get("warning"):
        assert spans_of(labels) == result["supervised_spans"]
        return "equal"
    if not wanted:
        assert not spans_of(labels)
        return TURNED_INTO_NOTHING
    if whole:
        assert learned == wanted
    else:
        assert all(text.startswith(part) for text, part in zip(wanted, learned, strict=False))
    return OLD_LAYOUT if old else GAVE_UP


def test_all_ids_and_labels_equal_the_original_or_have_a_reason() -> None:
    outcomes: Counter[str] = Counter()
    for result in DATA["results"]:
        name = (result["version"], result["tokenizer"], result["case"], result["model_max_length"])
        try:
            outcomes[check(SAMPLES[result["case"]], result)] += 1
        except AssertionError as error:
            raise AssertionError(f"{name}: {error}") from error
    for reason, number in outcomes.items():
        print(f"{number} results: {reason}")  # noqa: T201
    assert outcomes == EXPECTED
    assert sum(outcomes.values()) == len(DATA["results"])


@pytest.mark.parametrize("case", MULTIMODAL, ids=lambda c: f"{c['version']}-{c['value']!r}")
def test_pictures_are_written_in_the_same_place(case: dict) -> None:
    """Rows without an image field stay as they are, whatever the flags."""
    version = TEMPLATES[case["version"]].version
    for value, wanted in ((case["value"], case["human_out"]), (case["gpt_in"], case["gpt_out"])):
        if case["is_multimodal"]:
            assert pictures_to_front(value, version, start_end=case["mm_use_im_start_end"]) == wanted
        else:
            assert value == wanted


def test_v0_trains_the_layout_of_v1() -> None:
    assert training_template("v0") is training_template("v0.5") is TEMPLATES["vicuna_v1"]
    assert training_template("llava_v0") is TEMPLATES["llava_v0"]
    with pytest.raises(UsageError, match=r"--version is 'v2'; known templates: chatml_direct.*v0\.5"):
        training_template("v2")


@pytest.mark.parametrize("name", ["v1", "llama_2", "mpt"])
def test_an_empty_answer_among_others_is_an_open_turn(name: str) -> None:
    """Nothing of it is learned, and the other answer is."""
    tokenizer = golden_tokenizer("nonlegacy")
    turns = [("human", "q"), ("gpt", ""), ("human", "again"), ("gpt", "yes")]
    encoded = encode_sample(turns, TEMPLATES[name], tokenizer, num_patches=1, max_length=None)
    (start, end), *others = spans_of(encoded.labels)
    assert not others
    assert "yes" in tokenizer.decode(encoded.input_ids[start:end])
