"""The order of samples, as a pure function of seed and epoch.

By default whole groups stand together, whatever the batch size and ranks; without packing the original's
order by length can be had instead.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from llava.train.length_grouping import length_grouped, modality_length_grouped


def group_indices(keys: Sequence[object]) -> list[list[int]]:
    """Indices with equal keys together; None stands alone."""
    groups: dict[object, list[int]] = {}
    for index, key in enumerate(keys):
        groups.setdefault(("alone", index) if key is None else ("key", key), []).append(index)
    return list(groups.values())


def plan_epoch(groups: Sequence[Sequence[int]], *, max_branches: int, rng: random.Random) -> list[int]:
    """Every index once. Groups are cut into chunks of at most `max_branches`, chunks put into slots of
    exactly that size.

    A batch of a multiple of `max_branches` samples so never splits a chunk that fits its slot. What does not
    fill a slot is cut to size and shuffled among the others; only a remainder smaller than a slot comes last.
    """
    slots, partial = [], []
    for group in groups:
        members = list(group)
        rng.shuffle(members)
        for start in range(0, len(members), max_branches):
            chunk = members[start : start + max_branches]
            (slots if len(chunk) == max_branches else partial).append(chunk)
    rng.shuffle(partial)
    full, rest = fill_slots(partial, size=max_branches)
    slots.extend(full)
    stream = [index for chunk in rest for index in chunk]
    whole = len(stream) - len(stream) % max_branches
    slots.extend(stream[start : start + max_branches] for start in range(0, whole, max_branches))
    rng.shuffle(slots)
    return [index for slot in slots for index in slot] + stream[whole:]


def fill_slots(chunks: Sequence[list[int]], *, size: int) -> tuple[list[list[int]], list[list[int]]]:
    """Put chunks together to slots of exactly `size`, first fit by free room: (full slots, slots that stayed
    open).
    """
    open_by_room: dict[int, list[list[int]]] = {room: [] for room in range(1, size)}
    full = []
    for chunk in chunks:
        room = next((room for room in range(len(chunk), size) if open_by_room[room]), None)
        slot = open_by_room[room].pop() if room is not None else []
        slot = slot + chunk
        if len(slot) == size:
            full.append(slot)
        else:
            open_by_room[size - len(slot)].append(slot)
    return full, [slot for slots in open_by_room.values() for slot in slots]


@dataclass(frozen=True)
class PictureOrder:
    """`plan_epoch` for samples with these keys: equal where pictures are shared, None = alone."""

    keys: Sequence[object]
    max_branches: int
    seed: int

    def __call__(self, epoch: int) -> list[int]:
        """Every index once."""
        rng = random.Random(f"{self.seed}/{epoch}")
        return plan_epoch(group_indices(self.keys), max_branches=self.max_branches, rng=rng)


@dataclass(frozen=True)
class LengthOrder:
    """The original's order by length, see `llava.train.length_grouping`.

    `lengths` in words, negative for samples without a picture if `by_modality`. `world_size` is processes
    times accumulation steps, as there.
    """

    lengths: Sequence[int]
    by_modality: bool
    batch_size: int
    world_size: int
    seed: int

    def __call__(self, epoch: int) -> list[int]:
        """Every index once; the global random state is left as it was."""
        plan = modality_length_grouped if self.by_modality else length_grouped
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(random.Random(f"{self.seed}/{epoch}").getrandbits(63))
            return plan(self.lengths, batch_size=self.batch_size, world_size=self.world_size)


@dataclass(frozen=True)
class RowsOf:
    """An order of some rows: `order` is that of their places in `rows`, (N,)."""

    order: Callable[[int], list[int]]
    rows: np.ndarray

    def __call__(self, epoch: int) -> list[int]:
        """Each of the rows once."""
        return self.rows[self.order(epoch)].tolist()


class EpochSampler(torch.utils.data.Sampler[int | None]):
    """The order of the epoch that `set_epoch` names: `order` is a pure function of it, equal on all ranks.

    The order is filled up with None (no sample) to a multiple of `global_batch`, the samples of one step on
    all ranks. Without that, accelerate would fill the last step with samples of the first, and two ranks
    would train on other data than one process.
    """

    def __init__(self, order: Callable[[int], list[int]], *, num_samples: int, global_batch: int = 1) -> None:
        self.order = order
        self.num_samples = num_samples
        self.num_fillers = -num_samples % global_batch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of an epoch, counted from 0."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_samples + self.num_fillers

    def __iter__(self) -> Iterator[int | None]:
        yield from self.order(self.epoch)
        yield from [None] * self.num_fillers
