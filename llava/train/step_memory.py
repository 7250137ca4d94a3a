"""What a training step of these flags takes, and whether it needs gradient checkpointing; see
`llava.train.memory`.
"""

import logging
from typing import Any

import psutil
import torch
from torch import nn

from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.memory import (
    Estimate,
    Sharing,
    StepSettings,
    StepShape,
    bytes_of,
    estimate_step,
    processes_here,
    table,
)
from llava.train.starting_model import choose_trainable, whole_on_every_rank
from llava.train.summary import autocast_type

logger = logging.getLogger(__name__)

WITHOUT, WITH = "no checkpointing", "gradient checkpointing"


def skeleton(
    config: LlavaConfig,
    model_args: ModelArguments,
    training_args: TrainingArguments,
    *,
    checkpointing: bool,
) -> nn.Module:
    """The model that the flags would train, adapter and all, without numbers (on the device `meta`)."""
    dtype = torch.bfloat16 if training_args.bf16 and training_args.deepspeed else torch.float32
    config = LlavaConfig.from_dict(config.to_dict())
    with whole_on_every_rank(training_args), torch.device("meta"):
        model = LlavaForCausalLM._from_config(config, dtype=dtype)
        # masks of blocks and layouts depend on numbers, which are not there
        chosen = "eager" if training_args.attn_implementation == "eager" else "sdpa"
        model.model.language_model.set_attn_implementation(chosen)
        trainable = choose_trainable(model, model_args, training_args)
    if checkpointing:
        enable_checkpointing(model)
    return trainable


def enable_checkpointing(model: Any) -> None:
    """By the name that the installed transformers has for it."""
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    enable()


def estimate_run(
    config: LlavaConfig,
    shape: StepShape,
    model_args: ModelArguments,
    training_args: TrainingArguments,
    *,
    checkpointing: bool,
) -> Estimate:
    """A step of this shape under these flags, on one device."""
    settings = StepSettings(
        training_args.device,
        autocast=autocast_type(training_args),
        optimizer=str(getattr(training_args.optim, "value", training_args.optim)),
        accumulation=training_args.gradient_accumulation_steps,
        sharing=sharing_of(training_args),
    )
    model = skeleton(config, model_args, training_args, checkpointing=checkpointing)
    return estimate_step(model, shape, settings)


def sharing_of(args: TrainingArguments) -> Sharing:
    """Ranks, and DeepSpeed's stage."""
    stage = args.hf_deepspeed_config._stage if args.deepspeed else 0
    return Sharing(args.world_size, stage, low_precision=bool(stage and (args.bf16 or args.fp16)))


def memory_for(device: torch.device, loaded: int) -> int:
    """Bytes that this process may use on its device; `loaded`: those that its model takes in main memory."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available // processes_here() + loaded


def checkpointing_for(
    model: nn.Module, shape: StepShape, model_args: ModelArguments, training_args: TrainingArguments
) -> bool:
    """Whether the run checkpoints activations: as its flag says, or by the estimate. Logs the estimate."""
    config, device = model.config, training_args.device
    chosen = is_checkpointing(training_args) and not training_args.auto_checkpointing  # the last flag counts
    room = memory_for(device, bytes_of(model, trainable=False))
    try:
        first = estimate_run(config, shape, model_args, training_args, checkpointing=chosen)
        columns = {WITH if chosen else WITHOUT: first}
        if training_args.auto_checkpointing and first.total > room:
            chosen = True
            columns[WITH] = estimate_run(config, shape, model_args, training_args, checkpointing=True)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        logger.warning(
            "The memory of a step could not be estimated (%s); gradient checkpointing is %s.",
            error,
            "on" if chosen else "off",
        )
        return chosen
    logger.info("%s\nLargest of the first batches: %s.", table(columns), shape)
    logger.info(
        "Gradient checkpointing is %s%s; %s has %.1f GB free.",
        "on" if chosen else "off",
        " (auto)" if training_args.auto_checkpointing else "",
        device,
        room / 1e9,
    )
    return chosen


def is_checkpointing(args: TrainingArguments) -> bool:
    """The flag, by the name that the installed transformers has for it."""
    return bool(getattr(args, "activation_checkpointing", None) or args.gradient_checkpointing)


def set_checkpointing(args: TrainingArguments, *, on: bool) -> None:
    """Set the flag under all its names."""
    for name in ("activation_checkpointing", "gradient_checkpointing"):
        if hasattr(args, name):
            setattr(args, name, on)
