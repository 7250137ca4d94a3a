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

Choose = Callable[[Tensor, Sequence[int]], Tensor]
"""(logits (B, vocabulary) in fp32, number of each row in the batch) -> next tokens (B,)."""


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

    def chooser(self, questions: Sequence[Question], *, seed: int) -> Choose:
        """How the next tokens of a batch of these questions are chosen, beams aside."""
        if self.temperature == 0:
            return greedy
        return Sampler(self, [random.Random(source_of(question, seed)) for question in questions])


def source_of(question: Question, seed: int) -> str:
    """What seeds a question's draws: what it asks, not where it stands or beside which others."""
    turned = None if question.round is None else question.round.round_id
    return json.dumps([seed, question.question_id, turned, question.image, question.text])


def greedy(logits: Tensor, rows: Sequence[int]) -> Tensor:
    """The likeliest token of each row: (B, vocabulary) -> (B,)."""
    return logits.argmax(dim=-1)


class Sampler:
    """Draws from the distribution that `generate` would draw from, each row by numbers of its own.

    A row's number falls into the interval of one token when the tokens' probabilities are laid end to end in
    the order of their ids. So a question's answer depends neither on the batch nor on the order of the file.
    """

    def __init__(self, decoding: Decoding, sources: Sequence[random.Random]) -> None:
        self.sources = list(sources)
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

    def __call__(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Next tokens: (B, vocabulary) -> (B,)."""
        ends = self.probabilities(logits).double().cumsum(dim=-1)
        numbers = torch.tensor([self.sources[row].random() for row in rows], dtype=torch.double)
        points = numbers.to(ends.device)[:, None] * ends[:, -1:]
        return (ends <= points).sum(dim=-1)
