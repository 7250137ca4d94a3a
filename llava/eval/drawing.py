"""How answers are drawn from logits: greedily, or at random from a source of each question's own."""

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessorList,
    PreTrainedTokenizerBase,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from llava.eval.questions import Question

TOP_K = 50
"""Sampling draws from so many tokens at most, as transformers' `generate` does unless told otherwise."""

Choose = Callable[[Tensor, Sequence[random.Random | None]], Tensor]
"""(logits (B, vocabulary) in fp32, each row's source of random numbers) -> next tokens (B,)."""


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

    def chooser(self) -> Choose:
        """How next tokens are chosen, beams aside."""
        return greedy if self.temperature == 0 else Sampler(self)

    def source(self, question: Question, seed: int) -> random.Random | None:
        """The numbers that a question's tokens are drawn by: they follow from what it asks, not from where it
        stands or beside which others. None where nothing is drawn.
        """
        if self.temperature == 0:
            return None
        turned = None if question.round is None else question.round.round_id
        asked = [seed, question.question_id, turned, question.image, question.text]
        return random.Random(json.dumps(asked))


def greedy(logits: Tensor, sources: Sequence[random.Random | None]) -> Tensor:
    """The likeliest token of each row: (B, vocabulary) -> (B,)."""
    return logits.argmax(dim=-1)


class Sampler:
    """Draws from the distribution that `generate` would draw from, each row by numbers of its own.

    A row's number falls into the interval of one token when the tokens' probabilities are laid end to end in
    the order of their ids. So a question's answer depends neither on the batch nor on the order of the file.
    """

    def __init__(self, decoding: Decoding) -> None:
        self.warpers = LogitsProcessorList()
        if decoding.temperature != 1:
            self.warpers.append(TemperatureLogitsWarper(decoding.temperature))
        self.warpers.append(TopKLogitsWarper(TOP_K))
        if decoding.top_p is not None and decoding.top_p < 1:
            self.warpers.append(TopPLogitsWarper(decoding.top_p))

    def probabilities(self, logits: Tensor) -> Tensor:
        """Tempered and cut to the likely tokens: (B, vocabulary) -> (B, vocabulary)."""
        nothing = torch.empty(len(logits), 0, dtype=torch.long, device=logits.device)
        return self.warpers(nothing, logits).softmax(dim=-1)  # type: ignore[arg-type]

    def __call__(self, logits: Tensor, sources: Sequence[random.Random | None]) -> Tensor:
        """Next tokens: (B, vocabulary) -> (B,)."""
        ends = self.probabilities(logits).double().cumsum(dim=-1)
        numbers = [source.random() for source in sources if source is not None]
        points = torch.tensor(numbers, dtype=torch.double, device=ends.device)[:, None] * ends[:, -1:]
        return (ends <= points).sum(dim=-1)
