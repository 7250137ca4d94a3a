"""Shared-prefix packing: samples of one picture share its tokens, several groups share a row, and nothing
else changes.

    none     a row per sample: the slow twin that the others are tested against
    packed   several samples in a row, each a group of its own
    shared   samples with the same pictures and the same tokens up to them are branches of one group

A token sees the prefix and its own branch (`llava.model.attention`), positions restart after the prefix in
each branch, and the first token of a branch is predicted by the last token of the prefix.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from llava.constants import IGNORE_INDEX
from llava.model.attention import PREFIX
from llava.processing import Encoded

MODES = ("none", "packed", "shared")
GOOD_ENOUGH = 0.005
"""Padding, as a share of the tokens, at which the search for better rows ends."""
LITTLE_PADDING = 0.03
"""Padding, as a share of the tokens, above which longer rows are tried."""
SHORT_ROW, SOME_PADDING = 320, 0.1
"""Rows of fewer tokens may keep this much: on a CPU attention in two parts, from there on, costs more."""
GROUPS_PER_ROW = (1, 2, 3, 4, 6, 8)
"""Lengths of rows that are tried, in longest groups of the batch."""


@dataclass(frozen=True)
class Example:
    """A sample ready for a pack: its token ids and labels, and the files of its pictures in order."""

    sample_id: str
    encoded: Encoded
    images: tuple[str, ...]

    @property
    def prefix(self) -> tuple[int, ...]:
        """Token ids up to and including the last picture."""
        return tuple(self.encoded.input_ids[: self.encoded.prefix_length])

    @property
    def can_share(self) -> bool:
        """A prefix with a target in it belongs to one sample: shared, its loss would count once instead of K
        times.
        """
        labels = self.encoded.labels[: self.encoded.prefix_length]
        return bool(self.images) and all(label == IGNORE_INDEX for label in labels)


@dataclass
class Pack:
    """One row: token ids with their positions, groups and branches, targets as (predicting position, id),
    pictures.
    """

    input_ids: list[int] = field(default_factory=list)
    position_ids: list[int] = field(default_factory=list)
    group_ids: list[int] = field(default_factory=list)
    branch_ids: list[int] = field(default_factory=list)
    targets: list[tuple[int, int]] = field(default_factory=list)
    images: list[str] = field(default_factory=list)


def form_groups(examples: Sequence[Example], mode: str) -> list[list[Example]]:
    """Examples that share a prefix, in order of first appearance; every example alone unless the mode is
    `shared`.
    """
    groups: dict[object, list[Example]] = {}
    for number, example in enumerate(examples):
        shares = mode == "shared" and example.can_share
        groups.setdefault((example.images, example.prefix) if shares else number, []).append(example)
    return list(groups.values())


def group_length(group: Sequence[Example]) -> int:
    """Tokens of a group: its prefix once, and the branches."""
    prefix = group[0].encoded.prefix_length
    return prefix + sum(len(example.encoded.input_ids) - prefix for example in group)


def plan_rows(lengths: Sequence[int], *, capacity: int) -> list[list[int]]:
    """Indices of groups per row, in rows that leave as little padding as could be found; none is split.

    Rows have at most `capacity` tokens, or those of the longest group where it has more. All rows of a batch
    are padded to its widest, so rows that are equally full are sought, for each number of rows.
    """
    total, longest = sum(lengths), max(lengths, default=0)
    capacity = max(capacity, longest)
    best = fill_rows(lengths, width=capacity)
    best_tokens = padded_tokens(lengths, best)
    for num_rows in range(-(-total // max(capacity, 1)), min(len(lengths), 2 * len(best)) + 1):
        if best_tokens - total <= GOOD_ENOUGH * total:
            break
        if max(longest * num_rows, total) >= best_tokens:
            continue
        for rows in (
            even_rows(lengths, num_rows=num_rows),
            narrowest_rows(lengths, num_rows=num_rows, capacity=capacity),
        ):
            tokens = padded_tokens(lengths, rows)
            if tokens < best_tokens and tokens <= capacity * len(rows):
                best, best_tokens = rows, tokens
    return best


def narrowest_rows(lengths: Sequence[int], *, num_rows: int, capacity: int) -> list[list[int]]:
    """`fill_rows` with the smallest width up to `capacity` that needs no more than `num_rows` rows.

    More rows of that capacity where there is none.
    """
    low, high = max(*lengths, -(-sum(lengths) // num_rows)), capacity
    while low < high:
        width = (low + high) // 2
        if len(fill_rows(lengths, width=width)) > num_rows:
            low = width + 1
        else:
            high = width
    return fill_rows(lengths, width=high)


def even_rows(lengths: Sequence[int], *, num_rows: int) -> list[list[int]]:
    """Indices of groups in at most `num_rows` rows of about equal length, by differencing.

    Karmarkar and Karp, The differencing method of set partitioning (1982): the two partial plans whose rows
    differ most are joined, the longest row of one to the shortest of the other, until one plan is left.
    """
    empty: list[tuple[int, list[int]]] = [(0, [])] * (num_rows - 1)
    plans = [(-length, index, [*empty, (length, [index])]) for index, length in enumerate(lengths)]
    heapify(plans)
    for number in range(len(lengths), 2 * len(lengths) - 1):
        (_, _, first), (_, _, second) = heappop(plans), heappop(plans)
        joined = [
            (length + other, row + more)
            for (length, row), (other, more) in zip(first, reversed(second), strict=True)
        ]
        joined.sort(key=lambda entry: entry[0])
        heappush(plans, (joined[0][0] - joined[-1][0], number, joined))
    return [row for _, row in plans[0][2] if row]


def fill_rows(lengths: Sequence[int], *, width: int) -> list[list[int]]:
    """Indices of groups per row of `width` tokens: longest first, each where it leaves the least room."""
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []
    for index in sorted(range(len(lengths)), key=lambda number: (-lengths[number], number)):
        place = bisect_left(rooms, (lengths[index], 0))
        if place < len(rooms):
            room, row = rooms.pop(place)
        else:
            room, row = width, len(rows)
            rows.append([])
        rows[row].append(index)
        insort(rooms, (room - lengths[index], row))
    return rows


def padded_tokens(lengths: Sequence[int], rows: Sequence[Sequence[int]]) -> int:
    """Tokens of a batch of these rows, padding included."""
    return len(rows) * max((sum(lengths[index] for index in row) for row in rows), default=0)


def plan_short_rows(lengths: Sequence[int]) -> list[list[int]]:
    """Indices of groups per row, in rows that are no longer than little padding needs.

    Longer rows leave less room unused; they cost attention where it computes all pairs of a row.
    """
    best: list[list[int]] = []
    for number in GROUPS_PER_ROW:
        rows = plan_rows(lengths, capacity=number * max(lengths))
        if not best or padded_tokens(lengths, rows) < padded_tokens(lengths, best):
            best = rows
        tokens = padded_tokens(lengths, best)
        allowed = SOME_PADDING if tokens < SHORT_ROW * len(best) else LITTLE_PADDING
        if tokens <= (1 + allowed) * sum(lengths):
            break
    return best


def plan_packs(examples: Sequence[Example], mode: str, *, capacity: int | None = None) -> list[Pack]:
    """The rows of a batch. `capacity` is the most tokens of a row; None = as few as little padding needs."""
    groups = form_groups(examples, mode)
    if mode == "none":
        return [build_pack([group]) for group in groups]
    lengths = [group_length(group) for group in groups]
    rows = plan_short_rows(lengths) if capacity is None else plan_rows(lengths, capacity=capacity)
    return [build_pack([groups[index] for index in row]) for row in rows]


def build_pack(groups: Sequence[Sequence[Example]]) -> Pack:
    """Lay groups out in one row."""
    pack = Pack()
    for number, group in enumerate(groups):
        first = group[0].encoded
        length = first.prefix_length
        append_tokens(pack, first.input_ids[:length], group=number, branch=PREFIX, first_position=0)
        start = len(pack.input_ids) - length
        append_targets(pack, first.labels[:length], start=start, before=None)
        for branch, example in enumerate(group, start=1):
            before = start + length - 1 if length else None
            begin = len(pack.input_ids)
            append_tokens(
                pack, example.encoded.input_ids[length:], group=number, branch=branch, first_position=length
            )
            append_targets(pack, example.encoded.labels[length:], start=begin, before=before)
        pack.images.extend(group[0].images)
    return pack


def append_tokens(pack: Pack, ids: Sequence[int], *, group: int, branch: int, first_position: int) -> None:
    """Add tokens at the end of a pack."""
    pack.input_ids.extend(ids)
    pack.position_ids.extend(range(first_position, first_position + len(ids)))
    pack.group_ids.extend([group] * len(ids))
    pack.branch_ids.extend([branch] * len(ids))


def append_targets(pack: Pack, labels: Sequence[int], *, start: int, before: int | None) -> None:
    """Add the targets of a run of tokens that begins at `start`; `before` is the position that predicts its
    first token.

    The very first token of a sample (`before` None) cannot be predicted, whatever its label.
    """
    for offset, label in enumerate(labels):
        predictor = start + offset - 1 if offset else before
        if label != IGNORE_INDEX and predictor is not None:
            pack.targets.append((predictor, label))
