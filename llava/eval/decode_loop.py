"""Decode a batch token by token from its cache; a row that is done leaves, so that nobody waits for it, and
what is left of several batches goes on as one.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import DynamicCache, GenerationConfig

from llava.eval.drawing import Choose
from llava.eval.row_cache import join_rows, keep_rows, spread_rows
from llava.model.llava import LlavaForCausalLM


@dataclass
class Answer:
    """The ids so far to question number `index`, and the source that its sampled tokens are drawn from."""

    index: int
    source: random.Random | None = None
    tokens: list[int] = field(default_factory=list)


@dataclass
class Rows:
    """Rows on their way: ids (B, T) behind what `cache` holds of each, and the mask (B, cached + T).

    `positions` are those of the ids, (B, T).
    """

    answers: list[Answer]
    ids: Tensor
    mask: Tensor
    positions: Tensor
    cache: DynamicCache


def start_rows(answers: list[Answer], ids: Tensor, mask: Tensor, cache: DynamicCache) -> Rows:
    """Rows that begin with questions, ids (B, T) and the mask (B, cached + T) of whole rows."""
    positions = (mask.cumsum(dim=-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
    return Rows(answers, ids, mask, positions, cache)


def decode(
    model: LlavaForCausalLM,
    rows: Rows,
    choose: Choose,
    *,
    end: int | None,
    max_new_tokens: int,
    leave: int = 0,
) -> list[Answer]:
    """Answers up to and including `end`, of at most `max_new_tokens`, until at most `leave` rows are left.

    `rows` then holds these, ready to go on. Equal to transformers' `generate` token for token, to the
    rounding of a batch.
    """
    finished: list[Answer] = []
    while len(rows.answers) > leave:
        output = model(
            input_ids=rows.ids,
            attention_mask=rows.mask,
            position_ids=rows.positions,
            past_key_values=rows.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Any = output.logits
        chosen = choose(logits[:, -1].float(), [answer.source for answer in rows.answers])
        going_on = []
        for place, (answer, token) in enumerate(zip(rows.answers, chosen.tolist(), strict=True)):
            answer.tokens.append(token)
            if token == end or len(answer.tokens) >= max_new_tokens:
                finished.append(answer)
            else:
                going_on.append(place)
        step(rows, chosen, going_on)
    return finished


def step(rows: Rows, chosen: Tensor, going_on: Sequence[int]) -> None:
    """The chosen tokens (B,) become the next ids; rows that do not go on leave."""
    positions = rows.positions[:, -1:] + 1
    chosen = chosen[:, None].to(rows.ids.device)
    mask = rows.mask
    if 0 < len(going_on) < len(rows.answers):
        order = keep_rows(rows.cache, going_on, len(rows.answers))
        places = torch.tensor(order, device=mask.device)
        chosen, mask, positions = chosen[places], mask[places], positions[places]
        rows.answers = [rows.answers[place] for place in order]
    elif not going_on:
        rows.answers = []
    rows.ids, rows.positions = chosen, positions
    rows.mask = pad(mask, (0, 1), value=1)


def compact(rows: Rows, *, room: int) -> Rows:
    """The same rows in buffers of their own size, where those of rows that have left are not kept."""
    places = torch.arange(len(rows.answers), device=rows.ids.device)
    return replace(rows, cache=spread_rows(rows.cache, places, room=room))


def join(first: Rows, second: Rows, *, room: int) -> Rows:
    """Rows that wait for one id each, as one batch: the shorter ones get padding behind what is cached."""
    widths = [rows.mask.shape[1] - 1 for rows in (first, second)]
    longest = max(widths)
    masks = [
        torch.cat([pad(rows.mask[:, :-1], (0, longest - width)), rows.mask[:, -1:]], dim=-1)
        for rows, width in zip((first, second), widths, strict=True)
    ]
    return Rows(
        first.answers + second.answers,
        torch.cat([first.ids, second.ids]),
        torch.cat(masks),
        torch.cat([first.positions, second.positions]),
        join_rows(first.cache, second.cache, room=room),
    )


def generate(model: LlavaForCausalLM, rows: Rows, config: GenerationConfig) -> list[Answer]:
    """All answers by transformers' `generate`, for which every row stays to the end: the way of beams.

    Rows of the result are padded behind. With beams the cache holds each row once for every beam.
    """
    cached = rows.mask.shape[1] - rows.ids.shape[1]
    known = rows.ids.new_zeros(len(rows.ids), cached)  # `generate` only counts what the cache holds
    output: Any = model.generate(
        input_ids=torch.cat([known, rows.ids], dim=-1),
        attention_mask=rows.mask,
        past_key_values=rows.cache,
        generation_config=config,
    )
    for answer, tokens in zip(rows.answers, output[:, rows.mask.shape[1] :].tolist(), strict=True):
        answer.tokens = tokens
    return rows.answers
