"""Decode a batch token by token from its cache; a row that is done leaves, so that nobody waits for it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig

from llava.eval.drawing import Choose
from llava.eval.row_cache import keep_rows
from llava.model.llava import LlavaForCausalLM


@dataclass(frozen=True)
class Prompt:
    """Ids (B, T) behind what `cache` holds of each row, and the mask (B, cached + T) of whole rows."""

    ids: Tensor
    mask: Tensor
    cache: DynamicCache


def decode(
    model: LlavaForCausalLM, prompt: Prompt, choose: Choose, *, end: int | None, max_new_tokens: int
) -> list[list[int]]:
    """New ids of every row, up to and including `end`, at most `max_new_tokens`.

    Equal to transformers' `generate` token for token, to the rounding of a batch. The cache is used up.
    """
    mask, cache = prompt.mask, prompt.cache
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -prompt.ids.shape[1] :]
    ids = prompt.ids
    answers: list[list[int]] = [[] for _ in ids]
    rows: Sequence[int] = range(len(answers))  # which answer stands at each place of the batch
    for step in range(max_new_tokens):
        output = model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Any = output.logits
        chosen = choose(logits[:, -1].float(), rows)
        tokens = chosen.tolist()
        for row, token in zip(rows, tokens, strict=True):
            answers[row].append(token)
        going_on = [place for place, token in enumerate(tokens) if token != end]
        if not going_on or step + 1 == max_new_tokens:
            break
        positions = positions[:, -1:] + 1
        if len(going_on) < len(rows):
            order = keep_rows(cache, going_on, len(rows))
            rows = [rows[place] for place in order]
            places = torch.tensor(order, device=ids.device)
            chosen, mask, positions = chosen[places], mask[places], positions[places]
        ids = chosen[:, None].to(ids.device)
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=-1)
    return answers


def generate(model: LlavaForCausalLM, prompt: Prompt, config: GenerationConfig) -> list[list[int]]:
    """The same by transformers' `generate`, for which all rows stay to the end: beams, and the slow twin.

    Rows of the result are padded behind. With beams the cache holds each row once for every beam.
    """
    cached = prompt.mask.shape[1] - prompt.ids.shape[1]
    known = prompt.ids.new_zeros(len(prompt.ids), cached)  # `generate` only counts what the cache holds
    output: Any = model.generate(
        input_ids=torch.cat([known, prompt.ids], dim=-1),
        attention_mask=prompt.mask,
        past_key_values=prompt.cache,
        generation_config=config,
    )
    return output[:, prompt.mask.shape[1] :].tolist()
