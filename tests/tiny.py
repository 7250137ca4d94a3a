"""Tiny random models and samples that several tests share (a few thousand weights, built in milliseconds)."""

import random

import torch
from transformers import CLIPVisionConfig, LlamaConfig, PretrainedConfig

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.processing import Encoded
from llava.train.packing import Example

VOCABULARY = 50
NUM_PATCHES = 4


def tiny_text(family: type[PretrainedConfig] = LlamaConfig, **changes: object) -> PretrainedConfig:
    """Two layers of a family's language model, with grouped-query attention."""
    sizes: dict[str, object] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
    }
    return family(**(sizes | changes))


def tiny_vision(num_layers: int = 2) -> CLIPVisionConfig:
    """Pictures of 8 x 8 pixels are four patches."""
    return CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=num_layers,
        num_attention_heads=2,
        image_size=8,
        patch_size=4,
    )


SPECIAL_IDS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


def tiny_config(**changes: object) -> LlavaConfig:
    """Two layers each."""
    text = tiny_text(vocab_size=VOCABULARY, tie_word_embeddings=False, **SPECIAL_IDS)
    return LlavaConfig(text_config=text, vision_config=tiny_vision(), **changes)


def tiny_model(seed: int = 0, **changes: object) -> LlavaForCausalLM:
    """A random model with weights large enough that every path matters."""
    torch.manual_seed(seed)
    model = LlavaForCausalLM._from_config(tiny_config(**changes), dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(std=0.2)
    return model


def picture(path: str) -> torch.Tensor:
    """Pixels that depend on the path only."""
    return torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(sum(path.encode())))


def example(
    name: str, rng: random.Random, *, image: str | None = "a", answer_at_once: bool = False
) -> Example:
    """A sample with one or two turns; `answer_at_once` = the target follows the picture directly (template
    plain).
    """
    prefix = [1, 7, 8, *[IMAGE_TOKEN_INDEX] * NUM_PATCHES] if image else []
    ids, labels = list(prefix), [IGNORE_INDEX] * len(prefix)
    for _ in range(1 if answer_at_once else rng.randint(1, 2)):
        question = [] if answer_at_once else [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(2, 5))]
        answer = [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(1, 4))] + [2]
        ids += question + answer
        labels += [IGNORE_INDEX] * len(question) + answer
    encoded = Encoded(input_ids=ids, labels=labels, prefix_length=len(prefix), num_images=1 if image else 0)
    return Example(name, encoded, (image,) if image else ())


def mixed_examples(seed: int) -> list[Example]:
    """Two pictures with several samples each, text-only samples, and answers that follow the picture at
    once.
    """
    rng = random.Random(seed)
    examples = [example(f"a{number}", rng, image="a") for number in range(3)]
    examples += [example(f"b{number}", rng, image="b", answer_at_once=True) for number in range(2)]
    examples += [example("b-question", rng, image="b")]
    examples += [example(f"text{number}", rng, image=None) for number in range(2)]
    rng.shuffle(examples)
    return examples
