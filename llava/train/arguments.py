"""Command line to the three argument groups: the original's flags on transformers 5 and on any machine."""

import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NoReturn

import torch
import transformers
from transformers import HfArgumentParser

from llava.conversation import VERSIONS
from llava.errors import UsageError
from llava.train.flags import (
    Flag,
    add_evaluation_flags,
    check_flags,
    join_flags,
    split_flags,
    translate_flags,
    unknown_flag_message,
)
from llava.train.own_arguments import DataArguments, ModelArguments, OwnTrainingArguments

__all__ = ["DataArguments", "ModelArguments", "TrainingArguments", "parse_arguments"]

logger = logging.getLogger(__name__)

MOST_LOADERS = 8


@dataclass
class TrainingArguments(OwnTrainingArguments, transformers.TrainingArguments):
    """transformers' arguments, with our flags and defaults before them."""


class FlagParser(HfArgumentParser):
    """No abbreviations, and complaints as `UsageError` instead of 600 lines of usage."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (--help lists the flags).")


@dataclass(frozen=True)
class Machine:
    """What the flags depend on; `has_tf32` as transformers judges it."""

    has_accelerator: bool
    has_tf32: bool


def this_machine() -> Machine:
    """Look for an accelerator and for TF32."""
    from transformers.utils import is_torch_tf32_available

    return Machine(torch.accelerator.is_available(), bool(is_torch_tf32_available()))


def parse_arguments(
    argv: Sequence[str] | None = None,
) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """Parse a training command line (default: this process's). `UsageError` lists what is wrong with it."""
    argv = list(sys.argv[1:] if argv is None else argv)
    check_flags(argv)
    trainer_fields = {entry.name for entry in fields(TrainingArguments)}
    argv, notices = translate_flags(argv, trainer_fields)
    machine = this_machine()
    argv, more = fit_to_machine(argv, machine)
    argv = add_evaluation_flags(argv)
    argv = add_loader_flags(argv, num_cores=cores_of_this_rank(), has_accelerator=machine.has_accelerator)
    model_args, data_args, training_args = build_groups(argv)
    problems = value_problems(model_args, data_args, training_args)
    if problems:
        raise UsageError("; ".join(problems) + ".")
    if int(os.environ.get("RANK", "0")) == 0:
        for notice in [*notices, *more, *grouping_notices(training_args)]:
            logger.warning(notice)
    return model_args, data_args, training_args


def build_groups(argv: Sequence[str]) -> tuple[ModelArguments, DataArguments, TrainingArguments]:
    """The dataclasses; what transformers finds wrong becomes a `UsageError`."""
    dataclasses: list[Any] = [ModelArguments, DataArguments, TrainingArguments]
    parser = FlagParser(dataclasses, allow_abbrev=False)
    try:
        *groups, remaining = parser.parse_args_into_dataclasses(
            list(argv), return_remaining_strings=True, look_for_args_file=False
        )
    except UsageError:
        raise
    except (ValueError, ImportError) as error:
        raise UsageError(str(error)) from error
    if remaining:
        known = [entry.name for group in groups for entry in fields(group)]
        problems = [
            unknown_flag_message(word[2:], known)
            if word.startswith("--")
            else f"{word!r} is one word too many"
            for word in remaining
        ]
        raise UsageError("; ".join(problems) + " (quote words with blanks; --help lists the flags).")
    model_args, data_args, training_args = groups
    return model_args, data_args, training_args


def fit_to_machine(argv: Sequence[str], machine: Machine) -> tuple[list[str], list[str]]:
    """The command line for this machine, and notices: the CPU if there is no other, TF32 only where it is.

    `--bf16 True` stays as it is: it works on CPUs too. `UsageError` for fp16 on a CPU, which does not.
    """
    flags, notices = split_flags(argv), []
    values = {flag.name: is_true(flag) for flag in flags}
    if not machine.has_accelerator and not values.get("use_cpu"):
        flags.append(Flag("use_cpu", ("True",)))
        notices.append("No accelerator found: training on the CPU.")
    on_cpu = not machine.has_accelerator or values.get("use_cpu", False)
    if on_cpu and values.get("fp16"):
        raise UsageError(
            "--fp16 needs a GPU, and this run is on the CPU; use --bf16 True, or neither for fp32."
        )
    if values.get("tf32") and (on_cpu or not machine.has_tf32):
        flags.append(Flag("tf32", ("False",)))
        notices.append("--tf32 is off: there is no GPU with TF32 (Ampere or newer).")
    return join_flags(flags), notices


def cores_of_this_rank() -> int:
    """Cores that this process may use, shared out to the ranks of this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def add_loader_flags(argv: Sequence[str], *, num_cores: int, has_accelerator: bool) -> list[str]:
    """The command line with processes that open pictures ahead of the training, where it names none.

    Beside an accelerator all cores but one may do that, up to eight; on a CPU the training itself needs them,
    and one process is enough to hide the opening of pictures. They start anew in every epoch: workers that
    stay draw no new seed from torch's generator, so that dropout would differ after an interruption.
    """
    flags = split_flags(argv)
    if any(flag.name == "dataloader_num_workers" for flag in flags):
        return list(argv)
    most = min(MOST_LOADERS, max(1, num_cores - 1)) if has_accelerator else min(1, num_cores - 1)
    return join_flags([*flags, Flag("dataloader_num_workers", (str(most),))])


def is_true(flag: Flag) -> bool:
    """A switch is on when it stands alone or says so."""
    return not flag.words or flag.words[0].lower() in ("true", "t", "yes", "y", "1")


def grouping_notices(training_args: TrainingArguments) -> list[str]:
    """Why grouping by length or a row's length does nothing, where it does not."""
    if training_args.packing == "none":
        found = "--pack_tokens has no effect with --packing none: every sample has a row of its own."
        return [] if training_args.pack_tokens is None else [found]
    names = ("group_by_modality_length", "group_by_length")
    return [
        f"--{name} has no effect with --packing {training_args.packing}: batches are drawn by picture, and "
        "packing leaves little padding; --packing none gives the original's order."
        for name in names
        if getattr(training_args, name)
    ]


def value_problems(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> list[str]:
    """Values that parse but cannot work."""
    problems = []
    if model_args.version not in VERSIONS:
        problems.append(f"--version is {model_args.version!r}; known templates: {', '.join(VERSIONS)}")
    for name in ("max_branches", "model_max_length", "lora_r", "lora_alpha"):
        if getattr(training_args, name) < 1:
            problems.append(f"--{name} is {getattr(training_args, name)}; it must be at least 1")
    pack_tokens = training_args.pack_tokens
    if pack_tokens is not None and pack_tokens < 1:
        problems.append(f"--pack_tokens is {pack_tokens}; it must be at least 1, or left out")
    if not 0 <= training_args.lora_dropout < 1:
        problems.append(f"--lora_dropout is {training_args.lora_dropout}; it must be at least 0 and below 1")
    if training_args.remove_unused_columns:
        problems.append("--remove_unused_columns is True; it must be False, the collator needs every field")
    if training_args.lora_enable and model_args.tune_mm_mlp_adapter:
        problems.append("--lora_enable and --tune_mm_mlp_adapter exclude each other; drop one")
    if training_args.freeze_mm_mlp_adapter and model_args.tune_mm_mlp_adapter:
        problems.append("--freeze_mm_mlp_adapter and --tune_mm_mlp_adapter leave nothing to train; drop one")
    if training_args.early_stopping_patience < 0:
        problems.append(
            f"--early_stopping_patience is {training_args.early_stopping_patience}; it must not be negative"
        )
    if training_args.mm_projector_lr is not None and training_args.mm_projector_lr < 0:
        problems.append(f"--mm_projector_lr is {training_args.mm_projector_lr}; it must not be negative")
    return problems + micro_batch_problems(training_args)


def micro_batch_problems(args: TrainingArguments) -> list[str]:
    """What is wrong with --micro_batch_size."""
    given, batch_size = args.micro_batch_size, args.per_device_train_batch_size
    if given == "auto":
        return []
    if not given.isdecimal() or int(given) == 0:
        return [f"--micro_batch_size is {given!r}; it must be auto or a number of samples"]
    if batch_size % int(given):
        return [
            f"--micro_batch_size {given} does not divide --per_device_train_batch_size {batch_size}; use one "
            f"of {', '.join(str(size) for size in divisors(batch_size))}"
        ]
    if args.deepspeed and int(given) < batch_size:
        return [
            "--micro_batch_size is for runs without DeepSpeed; a smaller --per_device_train_batch_size with "
            "more --gradient_accumulation_steps is the same step"
        ]
    return []


def divisors(number: int) -> list[int]:
    """The largest first: 6 -> 6, 3, 2, 1."""
    return [size for size in range(number, 0, -1) if number % size == 0]
