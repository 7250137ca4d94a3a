"""The model that training starts from: a LLaVA as it is, or a language model with a vision tower and a new
projector, and which of its weights train.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerFast
from transformers.image_processing_utils import BaseImageProcessor

from llava.conversation import training_template
from llava.errors import UsageError
from llava.images import load_image_processor
from llava.model.builder import (
    Parts,
    assemble,
    build,
    fit_to_scales,
    is_llava,
    load_projector,
    read_contents,
)
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.model.locations import find_folder
from llava.model.lora import LoraSettings, add_lora
from llava.model.weight_files import ADAPTER_CONFIG_NAME
from llava.tokenizer import load_tokenizer
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.attention_choice import set_attention
from llava.train.picture_tokens import START_END, add_tokens, load_start_end_rows, missing_tokens


@dataclass(frozen=True)
class Start:
    """A model on the CPU with what prepares its inputs; `folder` is where --model_name_or_path is on this
    machine.
    """

    model: LlavaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    image_processor: BaseImageProcessor
    folder: Path


@contextmanager
def whole_on_every_rank(training_args: TrainingArguments) -> Iterator[None]:
    """Hide DeepSpeed while the model is built: under ZeRO-3 transformers would hand out empty weights.

    Every rank loads the whole model into main memory, strictly; the engine cuts it up afterwards.
    """
    if not training_args.deepspeed:
        yield
        return
    from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(training_args.hf_deepspeed_config)


def build_for_training(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> Start:
    """The model in fp32: a LLaVA checkpoint as it is, or a language model with a vision tower and a new
    projector.

    Names are folders or hub ids. `UsageError` when they cannot be found or do not fit each other.
    """
    folder = find_folder(model_args.model_name_or_path, cache=training_args.cache_dir)
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        raise UsageError(
            f"{folder} is a LoRA adapter; training goes on from a full checkpoint (merge it first)."
        )
    dtype = torch.bfloat16 if training_args.bf16 and training_args.deepspeed else torch.float32
    projector_file = Path(model_args.pretrain_mm_mlp_adapter) if model_args.pretrain_mm_mlp_adapter else None
    if is_llava(folder):
        contents = read_contents(folder)
        model = build(contents, dtype=dtype)
        if projector_file is not None:
            load_projector(model, projector_file)
        tower_folder = contents.picture_folder
    else:
        if not model_args.vision_tower:
            raise UsageError(
                f"{folder} is a language model without a vision tower; name one with --vision_tower."
            )
        tower_folder = find_folder(model_args.vision_tower, cache=training_args.cache_dir)
        model = assemble(folder, tower_folder, parts_of(model_args, data_args, training_args), dtype=dtype)
        model.config.mm_vision_tower = model_args.vision_tower
    tokenizer = load_tokenizer(folder)
    choose_tokens(model, tokenizer, model_args, lora=training_args.lora_enable)
    if model.config.mm_use_im_start_end and projector_file is not None:
        load_start_end_rows(model, tokenizer, projector_file)
    model.config.image_aspect_ratio = data_args.image_aspect_ratio or model.config.image_aspect_ratio
    refuse_tiles(folder, model.config)
    model.config.conv_template = training_template(model_args.version).name
    model.config.tokenizer_model_max_length = training_args.model_max_length
    model.config.use_cache = False
    set_attention(model, training_args)
    image_processor = fit_to_scales(load_image_processor(tower_folder), model.config)
    return Start(model, tokenizer, image_processor, folder)


def refuse_tiles(folder: Path, config: LlavaConfig) -> None:
    """`UsageError` for pictures in tiles, which are for answering only."""
    if config.image_aspect_ratio == "anyres" or config.tiling.has_newline:
        raise UsageError(
            f"{folder} takes pictures in tiles (image_aspect_ratio {config.image_aspect_ratio!r}, "
            f"mm_patch_merge_type {config.mm_patch_merge_type!r}); training on tiles is not there. Start "
            "from a LLaVA-1.5 checkpoint."
        )


def choose_tokens(
    model: LlavaForCausalLM, tokenizer: PreTrainedTokenizerFast, model_args: ModelArguments, *, lora: bool
) -> None:
    """Set the two options for tokens around and in pictures, and add the tokens that are missing.

    `UsageError` where an adapter would be trained on rows that neither it nor its base would hold.
    """
    config = model.config
    if model_args.mm_use_im_start_end is not None:
        config.mm_use_im_start_end = model_args.mm_use_im_start_end
    if model_args.mm_use_im_patch_token is not None:
        config.mm_use_im_patch_token = model_args.mm_use_im_patch_token
    missing = missing_tokens(
        tokenizer, patch=config.mm_use_im_patch_token, start_end=config.mm_use_im_start_end
    )
    if lora and set(missing) & set(START_END):
        raise UsageError(
            f"--mm_use_im_start_end True with --lora_enable: the base lacks {' and '.join(START_END)}, and "
            "an adapter does not hold their embeddings. Leave the flag out, or train the adapter on a LLaVA "
            "that has them (trained in full with --mm_use_im_start_end True)."
        )
    if missing:
        add_tokens(model, tokenizer, missing)


def parts_of(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments) -> Parts:
    """What the flags say about a LLaVA that is put together."""
    projector_file = model_args.pretrain_mm_mlp_adapter
    return Parts(
        projector_type=model_args.mm_projector_type,
        select_layer=model_args.mm_vision_select_layer,
        select_feature=model_args.mm_vision_select_feature,
        image_aspect_ratio=data_args.image_aspect_ratio or "square",
        conv_template=training_template(model_args.version).name,
        max_length=training_args.model_max_length,
        projector_file=Path(projector_file) if projector_file else None,
    )


def choose_trainable(
    model: LlavaForCausalLM, model_args: ModelArguments, training_args: TrainingArguments
) -> torch.nn.Module:
    """Set which weights train, add LoRA if asked; frozen weights go to bf16 where training computes in it."""
    parts = model.model
    model.requires_grad_(True)
    parts.vision_tower.requires_grad_(not model_args.freeze_vision_tower)
    if model_args.freeze_backbone:  # the original leaves head and projector trainable
        parts.language_model.requires_grad_(False)
    if model_args.tune_mm_mlp_adapter:
        model.requires_grad_(False)
        if model.config.mm_use_im_start_end:  # their rows begin as a mean, so the input embeddings train too
            model.get_input_embeddings().requires_grad_(True)
    parts.multi_modal_projector.requires_grad_(not training_args.freeze_mm_mlp_adapter)
    trainable: torch.nn.Module = model
    if training_args.lora_enable:
        if model_args.tune_mm_mlp_adapter:
            raise UsageError("--lora_enable and --tune_mm_mlp_adapter exclude each other; drop one.")
        settings = LoraSettings(
            rank=training_args.lora_r,
            alpha=training_args.lora_alpha,
            dropout=training_args.lora_dropout,
            bias=training_args.lora_bias,
            train_projector=not training_args.freeze_mm_mlp_adapter,
        )
        trainable = add_lora(model, settings)
    if training_args.bf16 and not training_args.deepspeed:
        for weight in trainable.parameters():
            if not weight.requires_grad:
                weight.data = weight.data.to(torch.bfloat16)
    return trainable
