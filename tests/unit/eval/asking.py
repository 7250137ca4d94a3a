"""Questions to a tiny model, and each of them answered alone by transformers' `generate`."""

import random
from dataclasses import dataclass, field

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from llava.constants import IMAGE_TOKEN_INDEX
from llava.eval.drawing import Decoding, Sampler
from llava.eval.engine import AnswerEngine
from llava.eval.questions import Question
from llava.model.llava import LlavaForCausalLM
from llava.processing import Encoded, Picture
from tests.tiny import NUM_PATCHES, VOCABULARY, picture, tiny_model

TILES = {
    "mm_patch_merge_type": "spatial_unpad",
    "image_aspect_ratio": "anyres",
    "image_grid_pinpoints": [[8, 16], [16, 8], [16, 16]],
}
SIZES = {"a": (16, 16), "b": (16, 12), "c": (30, 10), "d": (10, 30)}
"""Files of the pictures that are cut into tiles."""


class Numbers:
    """A tokenizer whose texts are the ids; 2 ends an answer."""

    eos_token_id, bos_token_id, pad_token_id = 2, 1, 0

    def decode(self, ids: list[int], *, skip_special_tokens: bool) -> str:
        return " ".join(map(str, ids))


def answering_model(seed: int, **changes: object) -> LlavaForCausalLM:
    """A random model whose answers end, some soon and some late."""
    model = tiny_model(seed, **changes).eval()
    with torch.no_grad():
        model.lm_head.weight[2] *= 2.5
    return model


@dataclass
class Asked:
    """A model, questions, and which pictures were opened."""

    model: LlavaForCausalLM
    questions: list[Question]
    encoded: dict[object, Encoded]
    tiled: bool
    opened: list[str] = field(default_factory=list)

    def load(self, path: str) -> Picture:
        """One picture, whole or in tiles."""
        self.opened.append(path)
        if not self.tiled:
            return Picture(picture(path), (8, 8))
        across, down = self.model.config.tiling.grid(SIZES[path])
        return Picture(
            torch.stack([picture(f"{path}{tile}") for tile in range(1 + across * down)]), SIZES[path]
        )

    def engine(self, decoding: Decoding, batch_size: int, **changes: object) -> AnswerEngine:
        """The engine under test."""
        return AnswerEngine(
            self.model,
            Numbers(),  # type: ignore[arg-type]
            lambda question: self.encoded[question.question_id],
            self.load,
            decoding,
            batch_size=batch_size,
            **changes,  # type: ignore[arg-type]
        )

    def answers(self, decoding: Decoding, batch_size: int) -> list[str]:
        """The engine's answers in order."""
        found = dict(self.engine(decoding, batch_size).answer(self.questions))
        return [found[index] for index in range(len(self.questions))]

    def alone(self, decoding: Decoding) -> list[str]:
        """The answers one question at a time: the original's calling form and transformers' `generate`.

        Sampled tokens are chosen by our numbers in its loop.
        """
        return [self._alone(question, decoding) for question in self.questions]

    def _alone(self, question: Question, decoding: Decoding) -> str:
        encoded = self.encoded[question.question_id]
        ids = [token for token in encoded.input_ids if token != IMAGE_TOKEN_INDEX]
        images, sizes = None, None
        if question.image_path is not None:
            ids.insert(2, IMAGE_TOKEN_INDEX)
            shown = self.load(question.image_path)
            images, sizes = ([shown.pixels] if self.tiled else shown.pixels[None]), [shown.size]
        forced = LogitsProcessorList()
        if decoding.temperature > 0:
            forced.append(Chosen(Sampler(decoding), decoding.source(question, 0)))
        plain = Decoding(0.0, None, decoding.num_beams, decoding.max_new_tokens)
        output = self.model.generate(
            torch.tensor([ids]),
            images=images,
            image_sizes=sizes,
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            generation_config=plain.as_config(Numbers()),  # type: ignore[arg-type]
            logits_processor=forced,
        )
        return " ".join(map(str, output[0].tolist()))  # type: ignore[index]


class Chosen(LogitsProcessor):
    """Leaves `generate` the token that a sampler draws."""

    def __init__(self, sampler: Sampler, source: random.Random | None) -> None:
        self.sampler, self.source = sampler, source

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        token = self.sampler(scores, [self.source])
        return torch.full_like(scores, -torch.inf).scatter(1, token[:, None], 0.0)


def ask(seed: int, *, count: int = 16, tiled: bool = False) -> Asked:
    """Questions about four pictures and none, of different lengths, in mixed order."""
    rng = random.Random(seed)
    model = answering_model(seed, **(TILES if tiled else {}))
    questions, encoded = [], {}
    for number in range(count):
        image = rng.choice(["a", "b", "c", "d", None])
        patches = 0 if image is None else NUM_PATCHES
        if tiled and image is not None:
            patches = model.config.num_image_tokens(SIZES[image])
        prefix = [1, 4, *[IMAGE_TOKEN_INDEX] * patches] if image else []
        rest = ([] if image else [1]) + [rng.randrange(3, VOCABULARY) for _ in range(rng.randint(2, 9))]
        encoded[f"q{number}"] = Encoded([*prefix, *rest], [], len(prefix), 1 if image else 0)
        questions.append(Question(f"q{number}", f"text {number}", image, image, None))
    return Asked(model, questions, encoded, tiled)
