"""Questions to answers: a picture is opened, encoded and prefilled once, its questions are decoded together
from its cache.

The answers are those of one question at a time, token for token (greedy, fp32).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, PreTrainedTokenizerBase

from llava.eval.questions import Question
from llava.model.llava import LlavaForCausalLM
from llava.processing import Encoded, Picture
from llava.tokenizer import decode_text


@dataclass(frozen=True)
class Decoding:
    """How answers are drawn: temperature 0 is greedy; `max_new_tokens` per answer."""

    temperature: float = 0.0
    top_p: float | None = None
    num_beams: int = 1
    max_new_tokens: int = 128

    def as_config(self, tokenizer: PreTrainedTokenizerBase) -> GenerationConfig:
        """The same in transformers' words."""
        sampling = {"temperature": self.temperature, "top_p": self.top_p if self.top_p is not None else 1.0}
        return GenerationConfig(
            do_sample=self.temperature > 0,
            num_beams=self.num_beams,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=tokenizer.eos_token_id,
            bos_token_id=tokenizer.bos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            use_cache=True,
            **(sampling if self.temperature > 0 else {}),
        )


@dataclass(frozen=True)
class AnswerEngine:
    """`encode` turns a question into ids with an open answer, `load_picture` opens a picture's path."""

    model: LlavaForCausalLM
    tokenizer: PreTrainedTokenizerBase
    encode: Callable[[Question], Encoded]
    load_picture: Callable[[str], Picture]
    decoding: Decoding

    def answer(self, questions: Sequence[Question], *, batch_size: int) -> Iterator[tuple[int, str]]:
        """(index, answer) of every question, batches of at most `batch_size` questions, not in order."""
        encoded = [self.encode(question) for question in questions]
        for batch in plan_batches(questions, encoded, batch_size=batch_size):
            texts = self._answer_batch(
                [questions[index] for index in batch], [encoded[index] for index in batch]
            )
            yield from zip(batch, texts, strict=True)

    @torch.inference_mode()
    def _answer_batch(self, questions: Sequence[Question], encoded: Sequence[Encoded]) -> list[str]:
        """Answers to questions whose prefixes (up to the picture's last patch) are the same tokens."""
        length = encoded[0].prefix_length
        device = self.model.lm_head.weight.device
        ids, mask = align_questions(encoded, prefix_length=length, padding=self.tokenizer.pad_token_id or 0)
        cache = self._prefill(questions, encoded[0].input_ids[:length], device) if length else None
        output = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            past_key_values=cache,
            generation_config=self.decoding.as_config(self.tokenizer),
        )
        return [decode_text(self.tokenizer, row).strip() for row in output[:, ids.shape[1] :].tolist()]

    def _prefill(
        self, questions: Sequence[Question], prefix: list[int], device: torch.device
    ) -> DynamicCache:
        """Key-value cache of the prefix, a row per question and beam; each picture passes through the model
        once.
        """
        paths = list(dict.fromkeys(str(question.image_path) for question in questions))
        pictures = [self.load_picture(path) for path in paths]
        cache = DynamicCache(config=self.model.config.text_config)
        self.model(
            input_ids=torch.tensor([prefix] * len(paths), device=device),
            image_features=features_of(self.model, pictures),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        beams = range(self.decoding.num_beams)
        rows = [paths.index(str(question.image_path)) for question in questions for _ in beams]
        cache.batch_select_indices(torch.tensor(rows, device=device))
        return cache


def features_of(model: LlavaForCausalLM, pictures: Sequence[Picture]) -> Sequence[Tensor]:
    """The pictures' features, all in one pass of the vision tower."""
    pixels = [picture.pixels.to(model.device, model.dtype) for picture in pictures]
    whole = all(one.dim() == 3 for one in pixels)
    sizes = [picture.size for picture in pictures]
    return model.picture_features(torch.stack(pixels) if whole else pixels, sizes)


def plan_batches(
    questions: Sequence[Question], encoded: Sequence[Encoded], *, batch_size: int
) -> list[list[int]]:
    """Indices of questions answered together: same prefix tokens; questions of one picture side by side."""
    kinds: dict[tuple[int, ...], dict[str | None, list[int]]] = {}
    for index, (question, tokens) in enumerate(zip(questions, encoded, strict=True)):
        prefix = tuple(tokens.input_ids[: tokens.prefix_length])
        kinds.setdefault(prefix, {}).setdefault(question.image_path, []).append(index)
    batches = []
    for pictures in kinds.values():
        ordered = [index for indices in pictures.values() for index in indices]
        batches.extend(ordered[start : start + batch_size] for start in range(0, len(ordered), batch_size))
    return batches


def align_questions(encoded: Sequence[Encoded], *, prefix_length: int, padding: int) -> tuple[Tensor, Tensor]:
    """Ids and mask (B, T): the prefix, padding, and each question at the right end, where decoding goes
    on.
    """
    longest = max(len(tokens.input_ids) for tokens in encoded)
    ids, mask = [], []
    for tokens in encoded:
        gap = longest - len(tokens.input_ids)
        prefix, rest = tokens.input_ids[:prefix_length], tokens.input_ids[prefix_length:]
        ids.append([*prefix, *[padding] * gap, *rest])
        mask.append([*[1] * prefix_length, *[0] * gap, *[1] * len(rest)])
    return torch.tensor(ids), torch.tensor(mask)
