"""Each step's samples dealt out to the ranks, so that all have about the same number of tokens.

The samples of a step stay those of one process. Only who takes which is chosen, as a pure function of them:
every rank computes the same plan, and nothing is sent.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from llava.train.conversations import ConversationDataset
from llava.train.sample_index import SampleIndex
from llava.train.sampler import EpochSampler

logger = logging.getLogger(__name__)

MEASURED_SAMPLES = 64
LOOKED_AT_STEPS = 256
Batch = list[int | None]


@dataclass(frozen=True)
class TokenCosts:
    """What each sample costs: `own` (R,) tokens behind the prefix, `prefix` (R,) tokens up to the last
    picture, which the samples of a group (`groups` (R,), -1 = alone) have once per rank.
    """

    own: np.ndarray
    prefix: np.ndarray
    groups: np.ndarray

    def of(self, samples: Sequence[int | None]) -> float:
        """Tokens of samples that one rank takes."""
        present = [index for index in samples if index is not None]
        prefixes = {self.group_of(index): self.prefix[index] for index in present}
        return float(sum(self.own[present]) + sum(prefixes.values()))

    def group_of(self, index: int) -> int:
        """Equal for samples that share a prefix, negative for one that shares with none."""
        return int(self.groups[index]) if self.groups[index] >= 0 else -1 - index


def token_costs(dataset: ConversationDataset, *, shares_prefixes: bool) -> TokenCosts:
    """Costs from what the index knows: bytes of text, at the rate of some samples that are encoded here, and
    pictures.

    Exact counts would cost every rank the encoding of every sample of every rank.
    """
    index = SampleIndex.of(dataset.samples)
    num_samples = len(index)
    pictures = index.num_pictures * dataset.encoding.num_patches
    places = np.unique(np.linspace(0, num_samples - 1, min(MEASURED_SAMPLES, num_samples)).astype(int))
    encoded = [dataset.example(place).encoded for place in places.tolist()]
    texts = np.array([len(one.input_ids) for one in encoded]) - pictures[places]
    num_bytes = index.num_bytes
    rate = texts.sum() / max(1, num_bytes[places].sum())
    heads = [one.prefix_length - pictures[place] for one, place in zip(encoded, places, strict=True)]
    head = float(np.mean([tokens for tokens in heads if tokens > 0] or [0]))
    whole = np.minimum(num_bytes * rate + pictures, dataset.encoding.max_length)
    prefix = np.where(pictures > 0, np.minimum(pictures + head, whole), 0.0)
    groups = index.groups if shares_prefixes else np.full(num_samples, -1)
    return TokenCosts(whole - prefix, prefix, np.asarray(groups))


def deal(samples: Sequence[int | None], num_ranks: int, costs: TokenCosts) -> list[Batch]:
    """Samples to ranks, in their order; a rank may get none.

    First whole groups, the largest first, each to the rank with the fewest tokens (Graham's rule of 1969).
    Then single samples leave the fullest rank, as long as that makes it shorter and none as long: a group is
    split only where a prefix more is worth it.
    """
    members: dict[int, list[int]] = {}
    for index in samples:
        if index is not None:
            members.setdefault(costs.group_of(index), []).append(index)
    ranks: list[set[int]] = [set() for _ in range(num_ranks)]
    loads = [0.0] * num_ranks
    for minus_cost, group in sorted((-costs.of(group), group) for group in members.values()):
        chosen = loads.index(min(loads))
        ranks[chosen].update(group)
        loads[chosen] -= minus_cost
    while move_one(ranks, loads, costs):
        pass
    return [[index for index in samples if index in taken] or [None] for taken in ranks]


def move_one(ranks: list[set[int]], loads: list[float], costs: TokenCosts) -> bool:
    """Move the sample that helps most from the fullest rank to the emptiest; False if none helps."""
    fullest, emptiest = loads.index(max(loads)), loads.index(min(loads))
    here = Counter(costs.group_of(index) for index in ranks[fullest])
    there = {costs.group_of(index) for index in ranks[emptiest]}
    best, after = None, (loads[fullest], 0.0, 0.0)
    for index in sorted(ranks[fullest]):
        group, own, prefix = costs.group_of(index), costs.own[index], costs.prefix[index]
        left = loads[fullest] - own - (prefix if here[group] == 1 else 0.0)
        come = loads[emptiest] + own + (0.0 if group in there else prefix)
        if max(left, come) < after[0]:
            best, after = index, (max(left, come), left, come)
    if best is None:
        return False
    ranks[fullest].remove(best)
    ranks[emptiest].add(best)
    loads[fullest], loads[emptiest] = after[1:]
    return True


def deal_in_turn(samples: Sequence[int | None], num_ranks: int) -> list[Batch]:
    """As many samples for each rank, in their order."""
    size = len(samples) // num_ranks
    return [list(samples[rank * size : (rank + 1) * size]) for rank in range(num_ranks)]


class StepBatches(torch.utils.data.Sampler[Batch]):
    """Batches of a sampler's order, those of rank 0, 1, ... of the first micro-step, then of the second.

    accelerate hands every so many-th batch to a rank. Batches are dealt by tokens if there are `costs`, else
    by number.
    """

    def __init__(
        self, sampler: EpochSampler, *, batch_size: int, num_ranks: int, costs: TokenCosts | None = None
    ) -> None:
        self.sampler, self.size, self.num_ranks, self.costs = sampler, batch_size, num_ranks, costs

    def __len__(self) -> int:
        return -(-len(self.sampler) // (self.size * self.num_ranks)) * self.num_ranks

    def __iter__(self) -> Iterator[Batch]:
        for samples in self.micro_steps():
            yield from self.dealt(samples)

    def micro_steps(self) -> Iterator[Batch]:
        """The samples that all ranks together take at once, the last filled up with None."""
        order = iter(self.sampler)
        wanted = self.size * self.num_ranks
        while samples := list(islice(order, wanted)):
            yield samples + [None] * (wanted - len(samples))

    def dealt(self, samples: Batch) -> list[Batch]:
        """Those of one micro-step, by rank."""
        if self.costs is None or self.num_ranks == 1:
            return deal_in_turn(samples, self.num_ranks)
        return deal(samples, self.num_ranks, self.costs)


def imbalance(plans: Sequence[Sequence[Batch]], costs: TokenCosts) -> float:
    """How much more than the mean the fullest ranks have, over all micro-steps: 0.1 = 10 % of the time is
    waited.
    """
    loads = np.array([[costs.of(batch) for batch in plan] for plan in plans])
    return float(loads.max(axis=1).sum() / max(1.0, loads.mean(axis=1).sum()) - 1)


def tell_imbalance(batches: StepBatches) -> None:
    """Log how evenly the first micro-steps are dealt, and how evenly they were by number."""
    if batches.costs is None or batches.num_ranks == 1:
        return
    steps = list(islice(batches.micro_steps(), LOOKED_AT_STEPS))
    dealt = imbalance([batches.dealt(step) for step in steps], batches.costs)
    in_turn = imbalance([deal_in_turn(step, batches.num_ranks) for step in steps], batches.costs)
    logger.info(
        "Tokens of the fullest rank above the mean of all %d: %.1f %% (as many samples for each: %.1f %%).",
        batches.num_ranks,
        100 * dealt,
        100 * in_turn,
    )
