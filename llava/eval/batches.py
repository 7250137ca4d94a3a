"""Which questions are decoded together: plans and padded rows, all of it pure.

A share is what one pass of the prefixes serves: its pictures are encoded and prefilled together, once, and
its questions then decoded in one batch or several from those prefixes.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.constants import IMAGE_TOKEN_INDEX
from llava.processing import Encoded

MOST_PADDING = 1.25
"""Prefixes of one share differ in length by this factor at most; the shorter ones are padded."""


@dataclass(frozen=True)
class Asked:
    """Question number `index`, its picture's name (None without one) and its ids."""

    index: int
    picture: str | None
    encoded: Encoded

    @property
    def prefix(self) -> list[int]:
        """The tokens up to the picture's last patch."""
        return self.encoded.input_ids[: self.encoded.prefix_length]

    @property
    def rest(self) -> list[int]:
        """The tokens behind them."""
        return self.encoded.input_ids[self.encoded.prefix_length :]


@dataclass(frozen=True)
class Limit:
    """Most questions of a batch, and most tokens of its rows when they are full (None = no matter)."""

    rows: int
    tokens: int | None = None

    def halved(self) -> "Limit":
        """Half of it, at least one row."""
        return Limit(max(self.rows // 2, 1), None if self.tokens is None else self.tokens // 2)

    def rows_of(self, longest: int) -> int:
        """How many rows of that many tokens may stand in a batch; one may always."""
        if self.tokens is None:
            return self.rows
        return max(min(self.rows, self.tokens // max(longest, 1)), 1)


@dataclass(frozen=True)
class Share:
    """Pictures that are prefilled together, one question of each, and the batches asked about them.

    Without pictures `firsts` is empty.
    """

    firsts: list[Asked]
    batches: list[list[Asked]]


def plan_shares(asked: Sequence[Asked], limit: Limit, *, max_new_tokens: int) -> list[Share]:
    """Every question once: those about one picture in one share, of like length in a batch.

    A row counts with its prefix twice, since that stands in the share's cache and in the batch's.
    """
    groups: dict[tuple[str | None, tuple[int, ...]], list[Asked]] = {}
    for one in asked:
        groups.setdefault((one.picture, tuple(one.prefix)), []).append(one)
    shares: list[list[list[Asked]]] = []
    room = 0
    for group in sorted(groups.values(), key=lambda group: len(group[0].prefix)):
        length = len(group[0].prefix)
        shortest = len(shares[-1][0][0].prefix) if shares else 0
        fits = bool(shares) and len(shares[-1]) < room and length <= shortest * MOST_PADDING
        if fits and length:
            shares[-1].append(group)
            room = min(room, rows_for(group, limit, max_new_tokens))
        else:
            shares.append([group])
            room = rows_for(group, limit, max_new_tokens)
    return [finish_share(share, limit, max_new_tokens) for share in shares]


def rows_for(asked: Sequence[Asked], limit: Limit, max_new_tokens: int) -> int:
    """Rows of a batch in which the longest of these questions stand."""
    prefix = max(one.encoded.prefix_length for one in asked)
    rest = max(len(one.rest) for one in asked)
    return limit.rows_of(2 * prefix + rest + max_new_tokens)


def finish_share(groups: Sequence[Sequence[Asked]], limit: Limit, max_new_tokens: int) -> Share:
    """Cut the questions of some pictures into batches, the longest first."""
    questions = sorted((one for group in groups for one in group), key=lambda one: -len(one.rest))
    batches = []
    while questions:
        size = rows_for(questions, limit, max_new_tokens)
        batches.append(questions[:size])
        questions = questions[size:]
    firsts = [group[0] for group in groups if group[0].prefix]
    return Share(firsts, batches)


def without_pictures(share: Share, names: Collection[str | None]) -> Share:
    """What is left of a share without the questions about these pictures."""
    kept = [[one for one in batch if one.picture not in names] for batch in share.batches]
    return Share([one for one in share.firsts if one.picture not in names], [one for one in kept if one])


def common_words(prefixes: Sequence[Sequence[int]]) -> int:
    """How many tokens all prefixes begin with, none of them a picture's."""
    alike = 0
    for tokens in zip(*prefixes, strict=False):
        if len(set(tokens)) > 1 or tokens[0] == IMAGE_TOKEN_INDEX:
            break
        alike += 1
    return alike


def pad_prefixes(firsts: Sequence[Asked], *, padding: int) -> tuple[Tensor, Tensor]:
    """Ids and mask (I, P) of prefixes, padded behind."""
    longest = max(len(one.prefix) for one in firsts)
    ids = [one.prefix + [padding] * (longest - len(one.prefix)) for one in firsts]
    mask = [[1] * len(one.prefix) + [0] * (longest - len(one.prefix)) for one in firsts]
    return torch.tensor(ids), torch.tensor(mask)


def align_questions(batch: Sequence[Asked], *, prefix_width: int, padding: int) -> tuple[Tensor, Tensor]:
    """Ids (B, T) of what follows the prefixes, and the mask (B, prefix_width + T) of whole rows.

    Each question stands at the right end, where decoding goes on, and its padding in front of it.
    """
    longest = max(len(one.rest) for one in batch)
    ids, mask = [], []
    for one in batch:
        gap, behind = longest - len(one.rest), prefix_width - one.encoded.prefix_length
        ids.append([padding] * gap + one.rest)
        mask.append([1] * one.encoded.prefix_length + [0] * (behind + gap) + [1] * len(one.rest))
    return torch.tensor(ids), torch.tensor(mask)
