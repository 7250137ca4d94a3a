"""Open a model: from a checkpoint folder by its path alone, or put together from a language model and a
vision tower.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerBase
from transformers.image_processing_utils import BaseImageProcessor
from transformers.models.clip import CLIPVisionModel

from llava.errors import UsageError
from llava.model.checkpoint import (
    ADAPTER_CONFIG_NAME,
    PROJECTOR_NAME,
    find_base,
    load_strictly,
    read_projector,
    read_weights,
)
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.processing import load_image_processor
from llava.tokenizer import load_tokenizer

logger = logging.getLogger(__name__)

DEFAULT_CONTEXT = 2048


@dataclass(frozen=True)
class Parts:
    """How a new LLaVA is put together; `max_length` is in tokens, image included."""

    projector_type: str
    select_layer: int
    select_feature: str
    image_aspect_ratio: str
    conv_template: str
    max_length: int
    projector_file: Path | None = None


def read_config(folder: Path) -> dict:
    """config.json of a folder as plain JSON; `UsageError` when there is none or it is broken."""
    file = folder / "config.json"
    if not file.is_file():
        raise UsageError(f"{folder} is not a model folder: it has no config.json. Check the path.")
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UsageError(f"{file} is not valid JSON: {error}.") from None


def is_llava(folder: Path) -> bool:
    """Whether a folder holds a LLaVA of our layout (decided by config.json, never by its name)."""
    return read_config(folder).get("model_type") == LlavaConfig.model_type


def load_full(
    folder: Path, *, dtype: torch.dtype, attn_implementation: str | None = None
) -> LlavaForCausalLM:
    """A full checkpoint of our layout, on the CPU, in `dtype`; strict, see `load_strictly`."""
    config = LlavaConfig.from_dict(read_config(folder))
    model = new_model(config, dtype=dtype, attn_implementation=attn_implementation)
    weights = read_weights(folder)
    load_strictly(model, weights, tied=config.tie_word_embeddings, source=folder)
    return model


def new_model(
    config: LlavaConfig, *, dtype: torch.dtype, attn_implementation: str | None
) -> LlavaForCausalLM:
    """A LLaVA with weights still to be loaded (sub-models are initialised as transformers does)."""
    config.dtype = dtype
    for part in (config.text_config, config.vision_config):
        part.dtype = dtype
    return LlavaForCausalLM._from_config(config, dtype=dtype, attn_implementation=attn_implementation)


def load_checkpoint(
    folder: Path, *, model_base: str | None = None, dtype: torch.dtype, attn_implementation: str | None = None
) -> LlavaForCausalLM:
    """A checkpoint of our layout, full or LoRA (merged into its base)."""
    if not (folder / ADAPTER_CONFIG_NAME).is_file():
        return load_full(folder, dtype=dtype, attn_implementation=attn_implementation)
    from peft import PeftModel

    base = find_base(folder, model_base)
    model = load_full(base, dtype=dtype, attn_implementation=attn_implementation)
    wrapped = PeftModel.from_pretrained(model, str(folder))
    merged = wrapped.merge_and_unload()
    merged.config = LlavaConfig.from_dict(read_config(folder))
    merged.config.text_config, merged.config.vision_config = (
        model.config.text_config,
        model.config.vision_config,
    )
    return merged


def assemble(
    language_model: Path, vision_tower: Path, parts: Parts, *, dtype: torch.dtype
) -> LlavaForCausalLM:
    """A new LLaVA from a causal language model's folder and a vision model's folder; the projector is new or
    from a file.

    The new projector's weights come from the global random state, so that a seed decides them.
    """
    text = AutoModelForCausalLM.from_pretrained(str(language_model), dtype=dtype)
    vision = load_vision_tower(vision_tower, dtype=dtype)
    config = LlavaConfig(
        text_config=AutoConfig.from_pretrained(str(language_model)),
        vision_config=vision.config,
        mm_projector_type=parts.projector_type,
        mm_vision_select_layer=parts.select_layer,
        mm_vision_select_feature=parts.select_feature,
        image_aspect_ratio=parts.image_aspect_ratio,
        conv_template=parts.conv_template,
        tokenizer_model_max_length=parts.max_length,
        bos_token_id=text.config.bos_token_id,
        eos_token_id=text.config.eos_token_id,
        pad_token_id=text.config.pad_token_id,
    )
    model = new_model(config, dtype=dtype, attn_implementation=None)
    model.model.language_model.load_state_dict(text.get_decoder().state_dict(), strict=True)
    model.lm_head.load_state_dict(text.get_output_embeddings().state_dict(), strict=True)
    model.model.vision_tower.load_state_dict(vision.state_dict(), strict=True)
    if parts.projector_file is not None:
        load_projector(model, parts.projector_file)
    return model


def load_vision_tower(folder: Path, *, dtype: torch.dtype) -> torch.nn.Module:
    """A vision model of transformers (CLIP, or the vision half of another) from its folder or hub id."""
    try:
        kind = AutoConfig.from_pretrained(str(folder)).model_type
        if kind in ("clip", "clip_vision_model"):
            return CLIPVisionModel.from_pretrained(str(folder), dtype=dtype)
        from transformers import AutoModel

        model = AutoModel.from_pretrained(str(folder), dtype=dtype)
        return getattr(model, "vision_model", model)
    except OSError as error:
        raise UsageError(f"the vision tower {folder} could not be opened: {error}") from None


def load_projector(model: LlavaForCausalLM, file: Path) -> None:
    """Put the weights of a projector file into the model; `UsageError` when names or shapes differ."""
    weights = read_projector(file)
    try:
        model.model.multi_modal_projector.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise UsageError(
            f"{file} does not fit a {model.config.mm_projector_type} projector here: {error}"
        ) from None


def load_pretrained_model(
    model_path: str,
    model_base: str | None = None,
    model_name: str | None = None,
    load_8bit: bool = False,
    load_4bit: bool = False,
    device_map: object = "auto",
    device: str | None = None,
    use_flash_attn: bool = False,
    **kwargs: object,
) -> tuple[PreTrainedTokenizerBase, LlavaForCausalLM, BaseImageProcessor, int]:
    """The original's loader: (tokenizer, model in eval mode, image processor, context length in tokens).

    The kind of checkpoint is decided by its config.json and files; `model_name` is accepted and not used.
    `dtype` (or `torch_dtype`) may be given; the default is float16 on CUDA and float32 elsewhere.
    """
    if load_8bit or load_4bit:
        raise UsageError("loading in 8 or 4 bits is not supported yet; leave out load_8bit and load_4bit.")
    folder = Path(model_path)
    config = read_config(folder)
    if config.get("model_type") != LlavaConfig.model_type:
        raise UsageError(
            f"{folder} holds a {config.get('model_type')!r} model; known here: {LlavaConfig.model_type!r} "
            "(checkpoints that this package wrote)."
        )
    target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = kwargs.pop("dtype", None) or kwargs.pop("torch_dtype", None)
    dtype = dtype or (torch.float16 if target.type == "cuda" else torch.float32)
    attention = "flash_attention_2" if use_flash_attn else kwargs.pop("attn_implementation", None)
    source = folder
    if (folder / PROJECTOR_NAME).is_file() and not (folder / "model.safetensors").is_file() and model_base:
        raise UsageError(f"{folder} holds only a projector; train with it by --pretrain_mm_mlp_adapter.")
    model = load_checkpoint(source, model_base=model_base, dtype=dtype, attn_implementation=attention)
    model.to(target).eval()
    context = int(
        config.get("max_sequence_length") or config.get("tokenizer_model_max_length") or DEFAULT_CONTEXT
    )
    return load_tokenizer(folder), model, load_image_processor(folder), context
