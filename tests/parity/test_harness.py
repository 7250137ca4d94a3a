"""The package driven as evaluation harnesses drive the original: the calls of lmms-eval's `llava` wrapper.

A harness imports names, loads by path with its own keywords, pads a batch itself, and asks for answers or for
the likelihood of a given one.
"""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from llava.constants import DEFAULT_IMAGE_TOKEN, IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.conversation import SeparatorStyle, conv_templates
from llava.mm_utils import get_model_name_from_path, process_images, tokenizer_image_token
from llava.model.builder import load_pretrained_model
from tests.parity.golden import DATA, golden, golden_folder

NAME = "llava-v1.5-tiny"
GREEDY = [
    case
    for case in golden("generate/greedy.json")[NAME]
    if case["conv_mode"] == "vicuna_v1" and isinstance(case["images"], str) and "num_beams" not in case
]
LOSS_ATOL = 5e-6  # fp32: worst seen 4.8e-7


class Harness:
    """What a harness keeps of a model, and its two kinds of requests."""

    def __init__(self, pretrained: str, **loading: object) -> None:
        self.tokenizer, self.model, self.image_processor, self.max_length = load_pretrained_model(
            pretrained, None, get_model_name_from_path(pretrained), **loading
        )
        self.config = self.model.config
        self.device = torch.device("cpu")
        self.model.eval()
        self.model.tie_weights()
        self.model.to(self.device)
        pad = self.tokenizer.pad_token_id
        self.pad_id = self.tokenizer.eos_token_id if pad is None else pad

    def pixels(self, pictures: Sequence[Image.Image]) -> Any:
        """Pictures as the model wants them, in half precision; None without any."""
        if not pictures:
            return None
        images = process_images(pictures, self.image_processor, self.config)
        if isinstance(images, list):
            return [image.to(dtype=torch.float16, device=self.device) for image in images]
        return images.to(dtype=torch.float16, device=self.device)

    def conversation(self, context: str, num_pictures: int) -> Any:
        """A question in the template, its answer open; placeholders go in front if it has none."""
        if num_pictures and DEFAULT_IMAGE_TOKEN not in context:
            context = " ".join([DEFAULT_IMAGE_TOKEN] * num_pictures) + "\n" + context
        conversation = conv_templates["vicuna_v1"].copy()
        assert conversation.sep_style == SeparatorStyle.TWO
        conversation.append_message(conversation.roles[0], context)
        conversation.append_message(conversation.roles[1], None)
        return conversation

    def ids(self, prompt: str) -> torch.Tensor:
        """Ids with one placeholder per picture."""
        found = tokenizer_image_token(prompt, self.tokenizer, IMAGE_TOKEN_INDEX, return_tensors="pt")
        assert isinstance(found, torch.Tensor)
        return found

    def pad(self, rows: list[torch.Tensor]) -> torch.Tensor:
        """Rows of differing lengths, filled up on the tokenizer's padding side."""
        left = self.tokenizer.padding_side == "left"
        rows = [row.flip(0) for row in rows] if left else rows
        padded = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=self.pad_id)
        return padded.flip(1) if left else padded

    def answers(self, contexts: Sequence[str], pictures: Sequence[Image.Image], **changes: Any) -> list[str]:
        """Greedy answers of one batch; one picture per context, or none at all."""
        per_context = 1 if pictures else 0
        rows = [self.ids(self.conversation(context, per_context).get_prompt()) for context in contexts]
        input_ids = self.pad(rows).to(self.device)
        new = self.model.generate(
            input_ids,
            attention_mask=input_ids.ne(self.pad_id),
            pad_token_id=self.pad_id,
            images=self.pixels(pictures),
            image_sizes=[picture.size for picture in pictures],
            **{
                "do_sample": False,
                "temperature": 0,
                "top_p": None,
                "num_beams": 1,
                "max_new_tokens": 24,
                "use_cache": True,
                **changes,
            },
        )
        return self.tokenizer.batch_decode(new, skip_special_tokens=True)

    def log_likelihood(self, context: str, answer: str, pictures: Sequence[Image.Image]) -> tuple[float, Any]:
        """Mean loss of an answer's tokens, and the logits over all positions."""
        conversation = self.conversation(context, len(pictures))
        context_ids = self.ids(conversation.get_prompt())
        conversation.messages[1][1] = answer
        input_ids = self.ids(conversation.get_prompt())[None]
        labels = input_ids.clone()
        labels[0, : len(context_ids)] = IGNORE_INDEX
        with torch.inference_mode():
            output = self.model(
                input_ids=input_ids,
                labels=labels,
                images=self.pixels(pictures),
                use_cache=True,
                image_sizes=[picture.size for picture in pictures],
            )
        return float(output["loss"].item()), output["logits"]


@pytest.fixture(scope="module")
def harness() -> Harness:
    """As the wrapper loads by default."""
    return Harness(str(golden_folder(NAME)), device_map="", use_flash_attention_2=False)


def picture(name: str) -> Image.Image:
    """A golden picture as it is on disk."""
    with Image.open(DATA / "images" / f"{name}.png") as image:
        return image.copy()


def test_answers_are_the_goldens(harness: Harness) -> None:
    assert len(GREEDY) > 5
    for case in GREEDY:
        assert harness.answers([case["question"]], [picture(case["images"])]) == [case["text"]], case


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_batch_padded_on_either_side_answers_alike(
    harness: Harness, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.tokenizer, "padding_side", side)
    questions = [case["question"] for case in GREEDY]
    assert len({len(harness.ids(question)) for question in questions}) > 1, "some rows must be padded"
    found = harness.answers(questions, [picture(case["images"]) for case in GREEDY])
    assert found == [case["text"] for case in GREEDY]


def test_text_alone_gives_new_words_only(harness: Harness) -> None:
    case = next(case for case in golden("generate/greedy.json")[NAME] if case["images"] is None)
    assert harness.answers([case["question"]], []) == [case["text"]]


def test_sampling_and_beams_are_handed_through(harness: Harness) -> None:
    case = GREEDY[0]
    beams = harness.answers([case["question"]], [picture(case["images"])], num_beams=3)
    torch.manual_seed(0)
    sampled = harness.answers(
        [case["question"]] * 8,
        [picture(case["images"])] * 8,
        do_sample=True,
        temperature=5.0,
        top_p=0.99,
        max_new_tokens=8,
    )
    assert beams[0]
    assert len(set(sampled)) > 1


def test_the_likelihood_of_an_answer(harness: Harness) -> None:
    """The twin computes it from the model's own form: one placeholder per patch, pixels, no labels."""
    for case, answer in ((GREEDY[0], GREEDY[0]["text"]), (GREEDY[1], "zebra")):
        image = picture(case["images"])
        loss, logits = harness.log_likelihood(case["question"], answer, [image])
        model, num_patches = harness.model, harness.model.num_patches
        conversation = harness.conversation(case["question"], 1)
        start = len(harness.ids(conversation.get_prompt())) + num_patches - 1
        conversation.messages[1][1] = answer
        ids = harness.ids(conversation.get_prompt())
        ids = ids.repeat_interleave(torch.where(ids == IMAGE_TOKEN_INDEX, num_patches, 1))[None]
        with torch.inference_mode():
            twin = model(input_ids=ids, pixel_values=harness.pixels([image])).logits
        assert logits.shape == twin.shape == (1, ids.shape[1], model.config.text_config.vocab_size)
        assert torch.equal(logits, twin)
        wanted = functional.cross_entropy(twin[0, start - 1 : -1], ids[0, start:]).item()
        assert loss == pytest.approx(wanted, abs=LOSS_ATOL)
    likely = harness.log_likelihood(GREEDY[0]["question"], GREEDY[0]["text"], [picture(GREEDY[0]["images"])])[
        0
    ]
    unlikely = harness.log_likelihood(GREEDY[0]["question"], "zebra", [picture(GREEDY[0]["images"])])[0]
    assert likely < 0.1 < unlikely, "the model was tuned to answer so"


def test_several_pictures_and_none(harness: Harness) -> None:
    case = next(case for case in golden("generate/greedy.json")[NAME] if isinstance(case["images"], list))
    pictures = [picture(name) for name in case["images"]]
    loss, logits = harness.log_likelihood(case["question"], "red", pictures)
    assert loss > 0
    assert logits.shape[1] > len(pictures) * harness.model.num_patches
    assert harness.log_likelihood("Name a color.", "red", [])[0] > 0


def test_the_configuration_has_the_originals_names(harness: Harness) -> None:
    config = harness.config
    assert config.mm_use_im_start_end is False
    assert config.image_aspect_ratio == "pad"
    assert "image_aspect_ratio" in vars(config), "harnesses look there before they set it"
    assert (config.mm_vision_tower, config.mm_hidden_size) == ("tiny-clip", 32)
    assert harness.max_length == 2048
