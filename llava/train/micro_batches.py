"""How many samples of a step are computed at a time (`--micro_batch_size`).

A step's gradient is a sum over its samples, so they may be computed a few at a time: only the activations of
these few are held, and nothing is computed twice, as gradient checkpointing does. The step stays the same,
since losses are means over the targets of the global batch.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

import torch

from llava.model.config import LlavaConfig
from llava.train.arguments import ModelArguments, TrainingArguments, divisors
from llava.train.collator import PackingCollator
from llava.train.conversations import ConversationDataset
from llava.train.memory import StepShape
from llava.train.packing import Example
from llava.train.sampler import EpochSampler
from llava.train.step_memory import estimate_run

BATCHES_LOOKED_AT = 16
CPU_TOKENS = 768
"""Fewer tokens at a time were slower on two cores (230 took 14 to 25 % longer, 575 nothing, see docs)."""
CUDA_TOKENS = 4096
"""Fewer would leave a large GPU idle; not measured."""
MORE_TOKENS = 1.02
"""How much padding and repeated prefixes may grow by computing fewer samples at a time."""


@dataclass(frozen=True)
class Cut:
    """A step in parts of `size` samples: the shape of the largest part, and the tokens of a mean part."""

    size: int
    largest: StepShape
    tokens: float


def first_examples(sampler: EpochSampler, dataset: ConversationDataset, batch_size: int) -> list[Example]:
    """Samples of the first micro-batches, in the order of training."""
    return [dataset[index] for index in islice(sampler, BATCHES_LOOKED_AT * batch_size)]


def cut_into(examples: Sequence[Example], collator: PackingCollator, size: int) -> Cut:
    """What parts of `size` samples are like; no picture is opened."""
    collate = replace(collator, load_pixels=lambda path: torch.empty(0), vision_features=None)
    kept = collator.vision_features is not None
    shapes = []
    for start in range(0, len(examples), size):
        batch = collate(examples[start : start + size])
        rows, length = batch["input_ids"].shape
        pictures = len(batch.get("pixel_values", ()))
        shapes.append(StepShape(rows, length, pictures, len(batch["targets"]), kept))
    tokens = [shape.rows * shape.length for shape in shapes]
    return Cut(size, shapes[tokens.index(max(tokens))], sum(tokens) / len(tokens))


def cuts(examples: Sequence[Example], collator: PackingCollator, batch_size: int, least: int) -> list[Cut]:
    """Ways to cut a batch into equal parts that cost no time, the whole batch first.

    Parts have `least` tokens or more on average, and all parts together hardly more than the whole: a part
    that ends between the questions of a picture would compute its prefix twice.
    """
    whole = cut_into(examples, collator, batch_size)
    found = [whole]
    for size in divisors(batch_size)[1:]:
        if whole.tokens * size / batch_size < least:
            break
        cut = cut_into(examples, collator, size)
        if cut.tokens * batch_size / size <= MORE_TOKENS * whole.tokens:
            found.append(cut)
    return found


def choose_cut(
    examples: Sequence[Example],
    collator: PackingCollator,
    config: LlavaConfig,
    model_args: ModelArguments,
    args: TrainingArguments,
    *,
    room: int,
) -> Cut:
    """The parts that `--micro_batch_size` asks for.

    `auto`: on a CPU in fp32 the smallest that cost no time; on a GPU the largest that fit into `room` bytes
    without gradient checkpointing, if there are such. Several ranks, which share a step's samples by tokens,
    DeepSpeed and bf16 on a CPU, where parts were slower, keep the whole batch.
    """
    batch_size = args.train_batch_size
    if args.micro_batch_size != "auto":
        return cut_into(examples, collator, int(args.micro_batch_size))
    on_cpu = args.device.type == "cpu"
    if args.world_size > 1 or args.deepspeed or (on_cpu and args.bf16):
        return cut_into(examples, collator, batch_size)
    if on_cpu:
        return cuts(examples, collator, batch_size, CPU_TOKENS)[-1]
    ways = cuts(examples, collator, batch_size, CUDA_TOKENS)
    if not args.auto_checkpointing or len(ways) == 1:
        return ways[0]
    return next((cut for cut in ways if fits(cut, config, model_args, args, room=room)), ways[0])


def fits(
    cut: Cut, config: LlavaConfig, model_args: ModelArguments, args: TrainingArguments, *, room: int
) -> bool:
    """Whether a step in these parts fits into `room` bytes without gradient checkpointing."""
    args = copy.copy(args)
    use_cut(cut, args)
    try:
        estimate = estimate_run(config, cut.largest, model_args, args, checkpointing=False)
    except (RuntimeError, TypeError, NotImplementedError):
        return False
    return estimate.total <= room


def use_cut(cut: Cut, args: TrainingArguments) -> None:
    """Set the flags so that a step computes these parts: fewer samples at a time, more accumulation."""
    if cut.size < args.train_batch_size:
        args.gradient_accumulation_steps *= args.train_batch_size // cut.size
        args.per_device_train_batch_size = cut.size


def cut_text(cut: Cut, whole: int) -> str:
    """How a batch of `whole` samples is computed."""
    if cut.size == whole:
        return f"All {whole} samples of a batch are computed together."
    return f"Of {whole} samples of a batch {cut.size} are computed at a time (--micro_batch_size)."
