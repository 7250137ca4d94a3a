"""What a run shows before its first step: modules with their trainable weights, one sample with its targets,
the steps.
"""

import math
from collections.abc import Iterable

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.processing import Encoded
from llava.train.arguments import TrainingArguments
from llava.train.manifest import Position

PARTS = ("vision_tower", "multi_modal_projector", "language_model", "lm_head")


def part_of(name: str) -> str:
    """The part of the model that a weight belongs to, by its path."""
    return next((part for part in PARTS if part in name), "other")


def number_of(weight: nn.Parameter) -> int:
    """Elements of a weight, also where ZeRO-3 keeps only a piece of it here."""
    return int(getattr(weight, "ds_numel", weight.numel()))


def module_table(named_parameters: Iterable[tuple[str, nn.Parameter]]) -> str:
    """A row per part: all weights, trainable weights, types."""
    totals: dict[str, list] = {}
    for name, weight in named_parameters:
        row = totals.setdefault(part_of(name), [0, 0, set()])
        row[0] += number_of(weight)
        row[1] += number_of(weight) if weight.requires_grad else 0
        row[2].add(str(weight.dtype).removeprefix("torch."))
    lines = [f"{'module':<22}{'weights':>16}{'trainable':>16}  type"]
    lines += [
        f"{part:<22}{count:>16,}{trained:>16,}  {', '.join(sorted(types))}"
        for part, (count, trained, types) in totals.items()
    ]
    return "\n".join(lines)


def show_sample(encoded: Encoded, tokenizer: PreTrainedTokenizerBase) -> str:
    """The sample as text: pictures as <image xN>, targets between ⟦ and ⟧."""
    pieces: list[str] = []
    runs = group_runs(encoded)
    for kind, ids in runs:
        if kind == "image":
            pieces.append(f"<image x{len(ids)}>")
        else:
            text = tokenizer.decode(ids, skip_special_tokens=False)
            pieces.append(f"⟦{text}⟧" if kind == "target" else text)
    return " ".join(pieces)


def group_runs(encoded: Encoded) -> list[tuple[str, list[int]]]:
    """Token ids in runs of one kind: `image`, `target` or `context`."""
    runs: list[tuple[str, list[int]]] = []
    for token, label in zip(encoded.input_ids, encoded.labels, strict=True):
        kind = "image" if token == IMAGE_TOKEN_INDEX else "context" if label == IGNORE_INDEX else "target"
        if runs and runs[-1][0] == kind:
            runs[-1][1].append(token)
        else:
            runs.append((kind, [token]))
    return runs


def steps_of(num_samples: int, *, global_batch: int, epochs: float, max_steps: int) -> int:
    """Optimiser steps to come."""
    return max_steps if max_steps > 0 else math.ceil(math.ceil(num_samples / global_batch) * epochs)


def planned_steps(args: TrainingArguments, num_samples: int) -> int:
    """Optimiser steps of a whole run."""
    return steps_of(
        num_samples,
        global_batch=samples_per_step(args),
        epochs=args.num_train_epochs,
        max_steps=args.max_steps,
    )


def saves_of(args: TrainingArguments, steps: int) -> int:
    """Checkpoints that a run of so many steps saves, the last step's included."""
    if args.save_strategy == "no":
        return 0
    if args.save_strategy != "steps":
        return math.ceil(args.num_train_epochs)
    every = args.save_steps if args.save_steps >= 1 else max(1, math.ceil(steps * args.save_steps))
    return math.ceil(steps / every)


def samples_per_step(args: TrainingArguments) -> int:
    """Samples of the global batch: over accumulation steps and ranks."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def position_after(step: int, args: TrainingArguments, num_samples: int) -> Position:
    """How far a run is after `step` steps; the last step of an epoch may be smaller."""
    global_batch = samples_per_step(args)
    epoch, steps = divmod(step, steps_of(num_samples, global_batch=global_batch, epochs=1, max_steps=-1))
    drawn = min(steps * global_batch, num_samples)
    return Position(step, epoch * num_samples + drawn, epoch, drawn, args.packing)


def autocast_type(args: TrainingArguments) -> torch.dtype | None:
    """The type that Trainer's autocast computes in; DeepSpeed converts the weights instead."""
    if args.deepspeed or not (args.bf16 or args.fp16):
        return None
    return torch.bfloat16 if args.bf16 else torch.float16
