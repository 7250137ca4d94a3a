"""Attention of shared rows in two parts, where there is no FlexAttention: only pairs that the mask allows.

A group's prefix attends to itself, causally. Then all branches go as one batch, each over its prefix and
itself.
With a prefix of p tokens and K branches of b that is p^2 + K b (p + b) pairs instead of (p + K b)^2.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, scaled_dot_product_attention, softmax
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from llava.model.attention import PADDING, PREFIX

NAME = "two_part"
UNUSED_MASK = (1, 1, 1, 1)
"""Shape of a mask that transformers hands on as it is, and that nobody reads."""
LONG_ROW = 320
"""Tokens of a row from which on two parts are faster than all pairs (measured on two CPU cores)."""


@dataclass(frozen=True)
class Section:
    """All groups of a batch whose prefixes have p tokens; positions count through the rows, B x T of them.

    Attributes, of G groups with N branches of at most b tokens:
        prefixes: (G, p) positions.
        branches: (N, b) positions, any behind a branch's end.
        used: (N, b) which of them are the branch's.
        owners: (N,) the group of each branch.
    """

    prefixes: Tensor
    branches: Tensor
    used: Tensor
    owners: Tensor


Layout = list[Section]


def layout_of(group_ids: Tensor, branch_ids: Tensor) -> Layout:
    """The groups of (B, T) group and branch numbers, by the length of their prefix."""
    length = group_ids.shape[1]
    found: dict[int, list[tuple[int, list[range]]]] = {}
    for row, (groups, branches) in enumerate(zip(group_ids.cpu(), branch_ids.cpu(), strict=True)):
        pairs = torch.stack([groups, branches])
        runs, counts = torch.unique_consecutive(pairs, dim=1, return_counts=True)
        start, by_group = row * length, {}
        for (group, branch), count in zip(runs.T.tolist(), counts.tolist(), strict=True):
            if group != PADDING:
                by_group.setdefault(group, {})[branch] = range(start, start + count)
            start += count
        for places in by_group.values():
            prefix = places.pop(PREFIX, range(0))
            found.setdefault(len(prefix), []).append((prefix.start, list(places.values())))
    return [section_of(prefix, groups, group_ids.device) for prefix, groups in found.items()]


def section_of(prefix: int, groups: list[tuple[int, list[range]]], device: torch.device) -> Section:
    """(first position, branches) of each group, as tensors."""
    starts = torch.tensor([start for start, _ in groups])
    branches = [branch for _, places in groups for branch in places]
    lengths = torch.tensor([len(branch) for branch in branches])
    steps = torch.arange(max((len(branch) for branch in branches), default=0))
    used = steps < lengths[:, None]
    firsts = torch.tensor([branch.start for branch in branches])
    owners = torch.tensor([number for number, (_, places) in enumerate(groups) for _ in places])
    positions = (firsts[:, None] + steps).masked_fill(~used, 0)
    tensors = (starts[:, None] + torch.arange(prefix), positions, used, owners)
    return Section(*(tensor.to(device) for tensor in tensors))


def two_part_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    pack_layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The form that transformers calls: (B, H, T, d) each -> (B, T, H, d).

    Without a layout all pairs are computed, under the mask if there is one.
    """
    groups = query.shape[1] // key.shape[1]
    settings = {"scale": kwargs.get("scaling"), "dropout_p": kwargs.get("dropout", 0.0)}
    if pack_layout is None and query.shape[2] > 1 and is_slow(query):
        mask = causal_mask(query, key) if attention_mask is None else attention_mask
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return attend(query, key, value, attn_mask=mask, **settings).transpose(1, 2), None
    if pack_layout is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)[0], None
    rows, heads, length, width = query.shape
    tokens = [
        one.transpose(1, 2).reshape(rows * length, heads, width)
        for one in (query, repeat_kv(key, groups), repeat_kv(value, groups))
    ]
    parts = [part for section in pack_layout for part in attend_section(section, *tokens, settings)]
    places, found = (torch.cat(column) for column in zip(*parts, strict=True))
    output = torch.zeros_like(tokens[0]).index_copy(0, places, found)
    return output.view(rows, length, heads, width), None


def attend_section(
    section: Section, query: Tensor, key: Tensor, value: Tensor, settings: dict[str, Any]
) -> list[tuple[Tensor, Tensor]]:
    """Prefixes by themselves, then all branches over their prefix and themselves: tokens (S, H, d) ->
    positions (t,) and what is found there (t, H, d).
    """
    before = [one[section.prefixes].transpose(1, 2) for one in (query, key, value)]  # (G, H, p, d)
    own = [one[section.branches].transpose(1, 2) for one in (query, key, value)]  # (N, H, b, d)
    parts = []
    prefix, longest = section.prefixes.shape[1], section.branches.shape[1]
    if prefix:
        found = attend(*before, attn_mask=causal_mask(before[0], before[1]), **settings)
        parts.append((section.prefixes.flatten(), found.transpose(1, 2).flatten(0, 1)))
    if longest:
        keys, values = (
            torch.cat([first[section.owners], branch], dim=2)
            for first, branch in zip(before[1:], own[1:], strict=True)
        )
        found = attend(own[0], keys, values, attn_mask=causal_mask(own[0], keys), **settings)
        parts.append((section.branches[section.used], found.transpose(1, 2)[section.used]))
    return parts


def causal_mask(query: Tensor, key: Tensor) -> Tensor:
    """(t, s), True = attend: the last query sees all keys."""
    length, seen = query.shape[2], key.shape[2]
    return torch.ones(length, seen, dtype=torch.bool, device=query.device).tril(seen - length)


def is_slow(query: Tensor) -> bool:
    """Whether torch's own attention is slow for these numbers: in 16 bits on a CPU."""
    return query.device.type == "cpu" and (query.dtype != torch.float32 or torch.is_autocast_enabled("cpu"))


def attend(
    query: Tensor, key: Tensor, value: Tensor, *, attn_mask: Tensor, scale: float | None, dropout_p: float
) -> Tensor:
    """(N, H, t, d) over (N, H, s, d) under a mask of booleans; spelled out where torch's own is slow."""
    if not is_slow(query):
        return scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, scale=scale, dropout_p=dropout_p
        )
    weights = torch.matmul(query, key.transpose(2, 3)) * (scale or query.shape[-1] ** -0.5)
    weights = weights.masked_fill(~attn_mask, torch.finfo(weights.dtype).min)
    weights = softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.matmul(dropout(weights, dropout_p), value)


AttentionInterface.register(NAME, two_part_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
