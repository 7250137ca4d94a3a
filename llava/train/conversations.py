"""The training set: samples of a conversation JSON, encoded when they are asked for."""

import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX
from llava.conversation import SeparatorStyle, Template
from llava.errors import UsageError
from llava.processing import Encoded, encode_sample
from llava.train.index_file import MappedIndex, digest_of, digest_of_code
from llava.train.packing import Example
from llava.train.sample_index import Sample, SampleIndex
from llava.train.token_store import TokenStore, temporary_folder

logger = logging.getLogger(__name__)

SHOWN_PROBLEMS = 20
CODE = ("constants.py", "processing.py", "rendering.py", "tokenizer.py", "train/token_store.py")
"""What kept tokens depend on, beside the settings of an encoding."""
TURNS_OF_A_CAPTION = 2
TEMPLATE_BYTES, MARKER_BYTES = 100, 40
"""Generous room for what a template adds to its system text, and to each turn, when tokens are bounded by
bytes.
"""


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
    """Samples as `Example`s, None for no sample (see `EpochSampler`).

    `UsageError` with row and id for a sample whose pictures do not fit into the length.
    """

    def __init__(
        self, samples: Sequence[Sample], encoding: Encoding, store: TokenStore | None = None
    ) -> None:
        """`store` keeps samples that were encoded; it must be of these samples and this encoding."""
        self.samples = samples
        self.encoding = encoding
        self.store = store

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int | None) -> Example | None:
        return None if index is None else self.example(index)

    def example(self, index: int) -> Example:
        """A sample, encoded; cut to the length, it may have no target left (`check_long_samples` tells)."""
        sample = self.samples[index]
        encoded = None if self.store is None else self.store.get(index)
        if encoded is None:
            encoded = self.encode(sample)
            if self.store is not None:
                self.store.put(index, encoded)
        return Example(sample.sample_id, encoded, sample.images)

    def encode(self, sample: Sample) -> Encoded:
        """Ids and labels of a sample; `UsageError` with its row and id."""
        try:
            return encode(sample, self.encoding, max_length=self.encoding.max_length)
        except UsageError as error:
            raise UsageError(f"row {sample.row} (id {sample.sample_id}): {error}") from None


def encode(sample: Sample, encoding: Encoding, *, max_length: int | None) -> Encoded:
    """Ids and labels of a sample, cut to a length; None: whole."""
    return encode_sample(
        sample.turns,
        encoding.template,
        encoding.tokenizer,
        num_patches=encoding.num_patches,
        max_length=max_length,
        start_end=encoding.start_end,
    )


def open_store(samples: Sequence[Sample], encoding: Encoding) -> TokenStore | None:
    """Where encoded samples are kept: beside a kept index for later runs too, else as long as this process.

    None where nothing can be written.
    """
    tokenizer = encoding.tokenizer
    code = digest_of_code(*CODE)
    settings = [encoding.template, encoding.num_patches, encoding.max_length, encoding.start_end]
    parts = [
        tokenizer.backend_tokenizer.to_str(),
        type(tokenizer).__name__,
        tokenizer.bos_token_id,
        version("tokenizers"),
    ]
    try:
        if isinstance(samples, MappedIndex):
            # what one machine maps another does not see at once; and texts stay with their user
            owner = [platform.node(), Path.home()]
            folder = samples.folder_beside(f"tokens-{digest_of(code, *settings, *parts, *owner)}")
        else:
            folder = temporary_folder()
        return TokenStore(
            folder,
            len(samples),
            num_patches=encoding.num_patches,
            num_tokens=1 + max(tokenizer.get_vocab().values()),
        )
    except OSError as error:
        logger.warning("Samples are encoded anew in every epoch: %s.", error)
        return None


def check_long_samples(dataset: ConversationDataset) -> None:
    """Encode every sample that the length could rob of its pictures or its targets, so that this is known
    before the first step.

    Raises `UsageError` when a picture does not fit whole, or when no sample at all keeps a target. Single
    samples without a target are listed in a warning and stay, as in the original: they add nothing to a loss.
    """
    encoding = dataset.encoding
    problems, without_target = [], []
    for index in uncertain_samples(dataset).tolist():
        sample = dataset.samples[index]
        try:
            labels = dataset.example(index).encoded.labels
        except UsageError as error:
            problems.append(str(error))
            continue
        if all(label == IGNORE_INDEX for label in labels[1:]):
            without_target.append(f"row {sample.row} (id {sample.sample_id})")
    if problems:
        raise UsageError(f"{len(problems)} samples cannot be used:{listing(problems)}")
    if not without_target:
        return
    found = (
        f"{len(without_target)} of {len(dataset)} samples have no token of an answer left to learn after "
        f"cutting to {encoding.max_length} tokens; raise --model_max_length or shorten their questions:"
        f"{listing(without_target)}"
    )
    if len(without_target) == len(dataset):
        raise UsageError(found)
    logger.warning(found)


def uncertain_samples(dataset: ConversationDataset) -> np.ndarray:
    """Indices of the samples whose first answer or last picture may lie behind the length, (N,)."""
    index = SampleIndex.of(dataset.samples)
    return beyond_length(index, dataset.encoding, index.bytes_to_learn(per_turn=MARKER_BYTES))


def samples_that_may_reach(index: SampleIndex, encoding: Encoding) -> np.ndarray:
    """Indices of the samples that may be longer than the length, (N,)."""
    return beyond_length(index, encoding, index.bytes_of_turns(per_turn=MARKER_BYTES))


def beyond_length(index: SampleIndex, encoding: Encoding, num_bytes: np.ndarray) -> np.ndarray:
    """Indices of the samples of which `num_bytes` of text (R,) may be more tokens than the length, (N,).

    And of those that the template cannot hold: encoding them tells why.

    A token covers at least one byte, so what is certain needs no tokens.
    """
    template_bytes = TEMPLATE_BYTES + len(encoding.template.system.encode())
    most_tokens = template_bytes + num_bytes + index.num_pictures * encoding.num_patches
    beyond = most_tokens > encoding.max_length
    if encoding.template.style is SeparatorStyle.PLAIN:
        beyond |= index.num_turns != TURNS_OF_A_CAPTION
    return np.flatnonzero(beyond)


def listing(entries: Sequence[str]) -> str:
    """Entries on lines of their own, the first `SHOWN_PROBLEMS` of them."""
    more = len(entries) - SHOWN_PROBLEMS
    return "".join(f"\n  {entry}" for entry in entries[:SHOWN_PROBLEMS]) + f"\n  and {more} more" * (more > 0)
