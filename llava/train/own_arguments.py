"""The flags that this package adds to transformers' TrainingArguments, and its other defaults. Free of torch.

Most names are the original LLaVA's. Flags that are only accepted for old scripts are in `llava.train.flags`.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal


def flag(default: object, help_text: str) -> Any:
    """A dataclass field with the text that --help shows."""
    return field(default=default, metadata={"help": help_text})


@dataclass
class ModelArguments:
    """Which model, and which parts of it train."""

    model_name_or_path: str = field(
        metadata={"help": "folder or hub id of a LLaVA, or of a language model alone"}
    )
    version: str = flag("v1", "conversation template by name (v1, llava_v1, plain, llama_2, ...)")
    vision_tower: str | None = flag(
        None, "folder or hub id of the vision tower, for a language model without one"
    )
    mm_vision_select_layer: int = flag(-1, "hidden layer of the vision tower that is read (LLaVA-1.5: -2)")
    mm_vision_select_feature: Literal["patch", "cls_patch"] = flag("patch", "without or with the class token")
    mm_projector_type: str = flag("linear", "linear, mlp2x_gelu (any number for the 2) or identity")
    pretrain_mm_mlp_adapter: str | None = flag(None, "file of a trained projector to start from")
    mm_use_im_start_end: bool | None = flag(
        None,
        "put pictures between <im_start> and <im_end>; default: as the checkpoint does, False for a new one",
    )
    mm_use_im_patch_token: bool | None = flag(
        None,
        "add the token <im_patch>, which no text uses; default: as the checkpoint does, False for a new one",
    )
    tune_mm_mlp_adapter: bool = flag(False, "train the projector only")
    freeze_backbone: bool = flag(
        False, "freeze the language model; its head and the projector stay trainable"
    )
    freeze_vision_tower: bool = flag(True, "freeze the vision tower")


@dataclass
class DataArguments:
    """Which conversations and pictures."""

    data_path: str = field(metadata={"help": "conversation JSON (an array of samples, or JSON lines)"})
    image_folder: str | None = flag(None, "folder that the samples' image fields are relative to")
    image_aspect_ratio: Literal["square", "pad"] | None = flag(
        None, "square (crop) or pad (LLaVA-1.5); default: as the checkpoint does, square for a new model"
    )
    check_pictures: Literal["auto", "full", "header", "none"] = flag(
        "auto",
        "how pictures are checked before the first step; auto: full up to 20,000 pictures, else header",
    )


@dataclass
class OwnTrainingArguments:
    """How it is trained; the second half only changes defaults of transformers' flags."""

    packing: Literal["none", "packed", "shared"] = flag(
        "shared", "rows of the batch: one sample each, several samples, or questions that share their picture"
    )
    pack_tokens: int | None = flag(
        None,
        "most tokens of a packed row; default: as few as keep padding below 3 % (at most 8 longest groups)",
    )
    micro_batch_size: str = flag(
        "auto",
        "samples of a batch that are computed at a time, which changes memory but no step; auto: on a CPU as "
        "few as cost no time (in fp32), on one GPU fewer if that spares checkpointing",
    )
    max_branches: int = flag(8, "most samples of one picture that share a prefix")
    eval_split: float = flag(
        0.0, "share of the pictures, with all their samples, to keep out and to evaluate on (--eval_strategy)"
    )
    early_stopping_patience: int = flag(
        0, "end after so many evaluations without a better loss, and keep the best checkpoint; 0 = never"
    )
    on_nonfinite: Literal["stop", "skip"] = flag(
        "stop", "at a loss or gradient that is not finite: stop, or leave the step out (three in a row stop)"
    )
    cache_vision_features: Literal["auto", "memory", "disk", "off"] = flag(
        "auto",
        "keep what a frozen vision tower sees; auto: in memory where pictures are seen again and it fits",
    )
    vision_cache_dir: str | None = flag(
        None, "folder for --cache_vision_features disk; default: ~/.cache/llava/vision_features"
    )
    cache_dir: str | None = flag(
        None, "where models that these flags name by hub id are kept; default: the hub's own cache"
    )
    group_by_modality_length: bool = flag(
        False, "batches of about equal length, with pictures or text only; needs --packing none"
    )
    group_by_length: bool = flag(False, "batches of samples of about equal length; needs --packing none")
    attn_implementation: Literal["auto", "eager", "sdpa", "flex_attention", "two_part"] = flag(
        "auto",
        "attention code; auto: two_part on a CPU (a prefix, then its branches), flex_attention on CUDA "
        "where it works, else sdpa",
    )
    auto_checkpointing: bool = flag(
        True,
        "set by --gradient_checkpointing auto (the default): on when a step would not fit the memory without",
    )
    compile_layers: bool = flag(False, "set by --torch_compile: compile the decoder layers")
    compile_backend: str = flag("inductor", "set by --torch_compile_backend: what compiles them")
    model_max_length: int = flag(2048, "most tokens of a sample, picture included; longer ones are cut")
    freeze_mm_mlp_adapter: bool = flag(False, "freeze the projector")
    mm_projector_lr: float | None = flag(None, "the projector's own learning rate")
    force_resume: bool = flag(
        False, "go on from a checkpoint that was made with other data or flags; the differences are listed"
    )
    lora_enable: bool = flag(False, "train a LoRA adapter on the language model's linear layers")
    lora_r: int = flag(64, "rank of the adapter")
    lora_alpha: int = flag(16, "scale of the adapter: alpha / r")
    lora_dropout: float = flag(0.05, "dropout before the adapter")
    lora_bias: Literal["none", "all", "lora_only"] = flag("none", "which biases train beside the adapter")

    optim: str = flag("adamw_torch", "optimiser")
    report_to: str = flag("none", "tracker: none, wandb, tensorboard, ...")
    remove_unused_columns: bool = flag(False, "must stay False: the collator needs every field of a sample")
    logging_nan_inf_filter: bool = flag(False, "hide a loss that is not finite")
    ddp_timeout: int = flag(600, "most seconds that a step or a message between ranks may take")
    average_tokens_across_devices: bool = flag(True, "mean over the targets of all ranks")


GROUPS = {"model": ModelArguments, "data": DataArguments, "training": OwnTrainingArguments}


def own_flag_names() -> tuple[str, ...]:
    """All names above."""
    return tuple(entry.name for group in GROUPS.values() for entry in fields(group))
