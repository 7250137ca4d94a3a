"""The original's order of samples: batches of samples that are about equally long, words counted by blanks.

The functions draw from torch's CPU generator exactly as the original does, so that seeded orders are equal.
"""

from collections.abc import Sequence

import torch

from llava.errors import UsageError
from llava.train.sample_index import num_words

__all__ = [
    "deal_evenly",
    "length_grouped",
    "length_of",
    "modality_length_grouped",
    "modality_length_of",
    "num_words",
]

PICTURE_WORDS = 128
"""What a picture counts in words, where lengths of samples with and without one are compared."""


def length_of(words: int, *, has_picture: bool) -> int:
    """The length of a sample in words, its picture included."""
    return words + PICTURE_WORDS * has_picture


def modality_length_of(words: int, *, has_picture: bool) -> int:
    """Words of a sample, negative without a picture: sign and size for `modality_length_grouped`."""
    return words if has_picture else -words


def deal_evenly(indices: Sequence[int], lengths: Sequence[int], num_chunks: int) -> list[list[int]]:
    """Deal a megabatch out to `num_chunks` chunks of about equal total length, in the order given.

    Each index goes to the open chunk with the least so far; a chunk closes when it has its share. Indices
    that do not divide evenly are dealt in turn.
    """
    share, rest = divmod(len(indices), num_chunks)
    if rest:
        return [list(indices[first::num_chunks]) for first in range(num_chunks)]
    chunks: list[list[int]] = [[] for _ in range(num_chunks)]
    totals = [0] * num_chunks
    for index in indices:
        target = min(
            (chunk for chunk in range(num_chunks) if len(chunks[chunk]) < share), key=totals.__getitem__
        )
        chunks[target].append(index)
        totals[target] += lengths[index]
    return chunks


def length_grouped(
    lengths: Sequence[int], *, batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """Every index once: random megabatches, each sorted from long to short and dealt to `world_size` batches.

    `world_size` is processes times accumulation steps; without `generator` the global one is drawn from.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    grouped: list[int] = []
    for megabatch in cut_into(order, world_size * batch_size):
        longest_first = sorted(megabatch, key=lambda index: -lengths[index])
        for chunk in deal_evenly(longest_first, lengths, world_size):
            grouped += chunk
    return grouped


def modality_length_grouped(
    lengths: Sequence[int], *, batch_size: int, world_size: int, generator: torch.Generator | None = None
) -> list[int]:
    """Every index once, in megabatches of one kind: with pictures (positive length) or text only (negative).

    The last megabatch of each kind, which may be short, goes to the end: both together, sorted by index. The
    order within a kind comes from the global generator, that of the megabatches from `generator` (without it
    from the global one too). With one kind only it is `length_grouped`. `UsageError` for a length of zero,
    which has no kind.
    """
    if 0 in lengths:
        raise UsageError(
            f"sample {list(lengths).index(0)} has no words, so it cannot be grouped by its length; write its "
            "texts or remove it."
        )
    kinds = [
        [index for index, length in enumerate(lengths) if (length > 0) == positive] for positive in (1, 0)
    ]
    if not all(kinds):
        return length_grouped(lengths, batch_size=batch_size, world_size=world_size, generator=generator)
    whole: list[list[int]] = []
    last: list[int] = []
    for members in kinds:
        sizes = [abs(lengths[index]) for index in members]
        order = length_grouped(sizes, batch_size=batch_size, world_size=world_size)
        megabatches = cut_into([members[place] for place in order], world_size * batch_size)
        whole += megabatches[:-1]
        last += megabatches[-1]
    shuffled = torch.randperm(len(whole), generator=generator).tolist()
    return [index for number in shuffled for index in whole[number]] + sorted(last)


def cut_into(indices: Sequence[int], size: int) -> list[list[int]]:
    """Pieces of `size` indices; the last one may be shorter."""
    return [list(indices[start : start + size]) for start in range(0, len(indices), size)]
