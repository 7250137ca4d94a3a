"""The training set: samples of a conversation JSON, encoded when they are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX
from llava.conversation import Template
from llava.errors import UsageError
from llava.processing import encode_sample
from llava.train.packing import Example
from llava.train.samples import Sample

SHOWN_PROBLEMS = 20
TEMPLATE_BYTES = 400
"""Generous room for the template's own text when tokens are bounded by bytes."""


@dataclass(frozen=True)
class Encoding:
    """How text becomes tokens: template, tokenizer, tokens per picture, the most tokens of a sample, and
    whether pictures stand between start and end tokens.
    """

    template: Template
    tokenizer: PreTrainedTokenizerBase
    num_patches: int
    max_length: int
    start_end: bool = False


class ConversationDataset(torch.utils.data.Dataset):
    """Samples as `Example`s, None for no sample (see `GroupSampler`).

    `UsageError` with row and id for a sample without a target.
    """

    def __init__(self, samples: Sequence[Sample], encoding: Encoding) -> None:
        self.samples = samples
        self.encoding = encoding

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | None) -> Example | None:
        return None if index is None else self.example(index)

    def example(self, index: int) -> Example:
        """A sample, encoded."""
        sample = self.samples[index]
        encoded = encode_sample(
            sample.turns,
            self.encoding.template,
            self.encoding.tokenizer,
            num_patches=self.encoding.num_patches,
            max_length=self.encoding.max_length,
            start_end=self.encoding.start_end,
        )
        if all(label == IGNORE_INDEX for label in encoded.labels[1:]):
            raise UsageError(
                f"row {sample.row} (id {sample.sample_id}): no token of an answer is left to learn after "
                f"cutting to {self.encoding.max_length} tokens; raise --model_max_length or shorten the "
                "question."
            )
        return Example(sample.sample_id, encoded, sample.images)


def check_long_samples(dataset: ConversationDataset) -> None:
    """Encode every sample that could be cut, so that one without a target is known before the first step.

    A token covers at least one byte, so samples with few bytes cannot be cut and are not encoded here.
    """
    encoding = dataset.encoding
    problems = []
    for index, sample in enumerate(dataset.samples):
        num_bytes = sum(len(text.encode()) for _, text in sample.turns)
        markers = TEMPLATE_BYTES + 40 * len(sample.turns)
        if num_bytes + markers + len(sample.images) * encoding.num_patches <= encoding.max_length:
            continue
        try:
            dataset.example(index)
        except UsageError as error:
            problems.append(str(error))
    if problems:
        shown = "\n  ".join(problems[:SHOWN_PROBLEMS])
        more = len(problems) - SHOWN_PROBLEMS
        raise UsageError(
            f"{len(problems)} samples cannot be used:\n  {shown}" + (f"\n  and {more} more" * (more > 0))
        )
