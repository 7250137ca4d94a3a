"""Open a model: from a checkpoint folder by its path alone, or put together from a language model and a
vision tower.
"""

import logging
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.image_processing_utils import BaseImageProcessor

from llava.errors import UsageError
from llava.images import PREPROCESSOR_NAMES, load_image_processor
from llava.model.checkpoint import find_base, load_strictly, read_projector, read_weights
from llava.model.config import LlavaConfig
from llava.model.contents import CONFIG_NAME, Contents, model_config, own_config, read_config
from llava.model.hf_layout import is_hf, read_hf
from llava.model.key_names import OURS
from llava.model.llava import LlavaForCausalLM
from llava.model.locations import find_folder
from llava.model.lora import merge, wrap
from llava.model.original import TEXT_TYPES, is_original, read_original
from llava.model.own_adapter import put_whole, read_own_adapter
from llava.model.placement import one_device, share_out
from llava.model.projector_stage import is_projector_stage, read_our_projector
from llava.model.quantize import import_bitsandbytes, quantize
from llava.model.room import check_part, check_room
from llava.model.vision_tower import load_vision_tower
from llava.model.weight_files import ADAPTER_CONFIG_NAME
from llava.model_files import blame
from llava.tokenizer import add_image_tokens, load_tokenizer

logger = logging.getLogger(__name__)

OPTIONS = ("dtype", "torch_dtype", "attn_implementation", "use_flash_attention_2", "cache_dir")
WITHOUT_EFFECT = ("multimodal", "low_cpu_mem_usage", "trust_remote_code")
"""Keywords of `load_pretrained_model` that clients of the original give, and that change nothing here."""


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


def is_ours(folder: Path) -> bool:
    """Whether a folder holds a LLaVA of our layout (decided by config.json, never by its name)."""
    return has_our_type(read_config(folder))


def has_our_type(config: Mapping[str, object]) -> bool:
    """Whether a config.json is that of our layout."""
    return config.get("model_type") == LlavaConfig.model_type


def is_llava(folder: Path) -> bool:
    """Whether a folder holds a LLaVA of any layout, and not a language model alone."""
    config = read_config(folder)
    return has_our_type(config) or is_hf(config) or is_original(config)


def read_contents(folder: Path, model_base: str | None = None) -> Contents:
    """What a LLaVA of any layout holds; config.json and the files decide which one it is, never a name.

    Our own adapters are not read here, see `load_adapter`.
    """
    config = read_config(folder)
    if has_our_type(config) and is_projector_stage(folder):
        return read_our_projector(folder, model_base)
    if has_our_type(config):
        return Contents(folder, own_config(folder), read_weights(folder), OURS, folder, folder)
    if is_hf(config):
        return read_hf(folder, config)
    if is_original(config):
        return read_original(folder, config, model_base)
    raise UsageError(
        f"{folder} holds a {config.get('model_type')!r} model; known here: {LlavaConfig.model_type!r} "
        f"(checkpoints that this package wrote), 'llava' (transformers' LLaVA) and "
        f"{', '.join(repr(name) for name in TEXT_TYPES)} (the original's)."
    )


def build(
    contents: Contents,
    *,
    dtype: torch.dtype,
    attn_implementation: str | None = None,
    device: torch.device | None = None,
) -> LlavaForCausalLM:
    """A model in `dtype` from a checkpoint's contents without its adapter; loading is strict.

    Each tensor goes from its file to `device` (None = the CPU) by itself: main memory holds the model's
    weights there, and never two copies.
    """
    make = partial(
        new_model, contents.config, dtype=dtype, attn_implementation=attn_implementation, empty=True
    )
    check_room(contents.source, contents.config, contents.weights, make=make)
    with blame(contents.source / CONFIG_NAME):
        model = make()
    tied = contents.config.tie_word_embeddings
    load_strictly(
        model, contents.weights, tied=tied, source=contents.source, table=contents.table, device=device
    )
    if tied:
        model.tie_weights()
    return model if device is None else model.to(device)  # the buffers, which were made on the CPU


def load_full(
    folder: Path, *, dtype: torch.dtype, attn_implementation: str | None = None
) -> LlavaForCausalLM:
    """A full checkpoint of any layout, on the CPU, in `dtype`; strict, see `load_strictly`."""
    return build(read_contents(folder), dtype=dtype, attn_implementation=attn_implementation)


def new_model(
    config: LlavaConfig, *, dtype: torch.dtype, attn_implementation: str | None, empty: bool = False
) -> LlavaForCausalLM:
    """A LLaVA initialised as transformers does; `empty` ones have buffers, but no memory for weights yet
    (they are on the meta device).
    """
    config.dtype = dtype
    for part in (config.text_config, config.vision_config):
        part.dtype = dtype
    with init_empty_weights(include_buffers=False) if empty else nullcontext():
        return LlavaForCausalLM._from_config(config, dtype=dtype, attn_implementation=attn_implementation)


def load_adapter(
    folder: Path,
    base: Contents,
    *,
    dtype: torch.dtype,
    attn_implementation: str | None = None,
    device: torch.device | None = None,
) -> LlavaForCausalLM:
    """An adapter of our layout, merged into its base."""
    model = build(base, dtype=dtype, attn_implementation=attn_implementation, device=device)
    adapter, whole = read_own_adapter(folder)
    put_whole(model, whole, source=folder)
    merged = merge(wrap(model, adapter, source=folder))
    merged.config = own_config(folder)
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
    text_config = model_config(language_model)
    check_part(language_model, AutoModelForCausalLM, text_config)
    with blame(language_model):
        chosen: Any = AutoModelForCausalLM
        text, report = chosen.from_pretrained(
            str(language_model), config=text_config, dtype=dtype, output_loading_info=True
        )
    if report["missing_keys"]:
        names = ", ".join(sorted(report["missing_keys"])[:5])
        raise UsageError(f"the language model {language_model} lacks weights: {names}; get the files again.")
    vision = load_vision_tower(vision_tower, dtype=dtype)
    config = LlavaConfig(
        text_config=model_config(language_model),
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
    model = new_model(config, dtype=dtype, attn_implementation=None, empty=True)
    for place, part in (
        (model.model.language_model, text.get_decoder()),
        (model.lm_head, text.get_output_embeddings()),
        (model.model.vision_tower, vision),
    ):
        place.load_state_dict(part.state_dict(), strict=True, assign=True)  # their memory becomes the model's
    model.model.multi_modal_projector.to_empty(device="cpu").apply(model._init_weights)
    model.tie_weights()
    if parts.projector_file is not None:
        load_projector(model, parts.projector_file)
    return model


def load_projector(model: LlavaForCausalLM, file: Path) -> None:
    """Put the weights of a projector file into the model; `UsageError` when names or shapes differ."""
    weights = read_projector(file)
    try:
        model.model.multi_modal_projector.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        raise UsageError(
            f"{file} does not fit a {model.config.mm_projector_type} projector here: {error}"
        ) from None


@dataclass(frozen=True)
class Opened:
    """A model in eval mode, adapters merged, with what prepares its inputs.

    `text_folder` is where the tokenizer's files are, `dtypes` says how each tensor is stored, by our names.
    """

    model: LlavaForCausalLM
    tokenizer: PreTrainedTokenizerFast
    image_processor: BaseImageProcessor
    text_folder: Path
    dtypes: dict[str, torch.dtype]


def open_checkpoint(
    folder: Path,
    model_base: str | None,
    *,
    dtype: torch.dtype,
    attn_implementation: str | None = None,
    device: torch.device | None = None,
) -> Opened:
    """A checkpoint of any layout, whole, on `device` (None = the CPU); the kind is decided by its config.json
    and files.
    """
    if is_ours(folder) and (folder / ADAPTER_CONFIG_NAME).is_file():
        contents = read_contents(find_base(folder, model_base))
        model = load_adapter(
            folder, contents, dtype=dtype, attn_implementation=attn_implementation, device=device
        )
        text_folder, picture_folder = folder, folder
    else:
        contents = read_contents(folder, model_base)
        text_folder, picture_folder = contents.text_folder, contents.picture_folder
        model = build(contents, dtype=dtype, attn_implementation=attn_implementation, device=device)
        if contents.adapter is not None:
            model = merge(wrap(model, contents.adapter, source=folder))
    tokenizer = load_tokenizer(text_folder)
    add_image_tokens(
        tokenizer,
        patch=model.config.mm_use_im_patch_token,
        start_end=model.config.mm_use_im_start_end,
        num_rows=model.config.text_config.vocab_size,
    )
    dtypes = {key: form.dtype for key, form in contents.weights.forms().items()}
    with blame(picture_folder / PREPROCESSOR_NAMES[0]):
        image_processor = fit_to_scales(load_image_processor(picture_folder), model.config)
    return Opened(model.eval(), tokenizer, image_processor, text_folder, dtypes)


def fit_to_scales(image_processor: Any, config: LlavaConfig) -> Any:
    """The image processor for the largest size at which a picture is seen (S2).

    `UsageError` when it makes pictures of another size than the vision tower takes.
    """
    wanted, found = config.vision_config.image_size, image_processor.crop_size
    if not config.scales and found != {"height": wanted, "width": wanted}:
        raise UsageError(
            f"the image processor makes pictures of {found['width']} x {found['height']} pixels, but the "
            f"vision tower takes {wanted} x {wanted}; correct crop_size in {PREPROCESSOR_NAMES[0]}."
        )
    if config.scales:
        side = config.scales[-1]
        image_processor.size = {"shortest_edge": side}
        image_processor.crop_size = {"height": side, "width": side}
    return image_processor


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
    `dtype` (or `torch_dtype`, a type or its name) may be given; the default is float16 on CUDA and float32
    elsewhere. `device_map` is a device, a map, or one of transformers' words; `device` counts before it.
    `cache_dir` is where models that are named by a hub id are kept.
    """
    if model_name is not None:
        logger.warning("model_name %r is not used: config.json says what the checkpoint is.", model_name)
    if load_8bit and load_4bit:
        raise UsageError("load_8bit and load_4bit exclude each other; give one of them.")
    bits = 4 if load_4bit else 8 if load_8bit else 16
    if bits < 16:
        import_bitsandbytes()  # before the weights are read
    options = read_options(kwargs, use_flash_attn=use_flash_attn)
    folder = find_folder(model_path, cache=options.cache)
    if model_base is not None and options.cache is not None:
        model_base = str(find_folder(model_base, beside=folder, cache=options.cache))
    target = one_device(device_map, device)
    if target is None and bits < 16:
        raise UsageError(f"a model in {bits} bits goes to one device; name it with device='cuda:0'.")
    dtype = options.dtype or (torch.float32 if target is not None and target.type == "cpu" else torch.float16)
    opened = open_checkpoint(
        folder,
        model_base,
        dtype=dtype,
        attn_implementation=options.attention,
        device=target if bits == 16 else None,  # layers in few bits become small on their way to the device
    )
    model = opened.model
    if target is None:
        model = share_out(model, device_map)
    elif bits < 16:
        quantize(model, bits, target)
        model.to(target)
    context = getattr(model.config, "max_sequence_length", None) or model.config.tokenizer_model_max_length
    return opened.tokenizer, model, opened.image_processor, int(context)


@dataclass(frozen=True)
class LoadingOptions:
    """What the loader's other keywords say; None where they are silent."""

    dtype: torch.dtype | None
    attention: str | None
    cache: str | None = None


def read_options(kwargs: dict[str, object], *, use_flash_attn: bool) -> LoadingOptions:
    """The keywords that clients of the original hand through to transformers.

    Raises `TypeError` for an unknown one, as a call does, and `UsageError` for an unknown type of number or a
    missing package.
    """
    unknown = set(kwargs) - {*OPTIONS, *WITHOUT_EFFECT}
    if unknown:
        raise TypeError(f"load_pretrained_model() got unexpected keywords: {', '.join(sorted(unknown))}")
    dtype: Any = kwargs.get("dtype") or kwargs.get("torch_dtype")
    if isinstance(dtype, str):
        name = dtype.removeprefix("torch.")
        dtype = None if name == "auto" else getattr(torch, name, name)
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UsageError(f"dtype is {dtype!r}; use float32, float16 or bfloat16.")
    attention: Any = kwargs.get("attn_implementation")
    if use_flash_attn or kwargs.get("use_flash_attention_2"):
        attention = "flash_attention_2"
    if attention == "flash_attention_2" and find_spec("flash_attn") is None:
        raise UsageError("flash attention 2 needs flash-attn; pip install flash-attn, or do not ask for it.")
    cache: Any = kwargs.get("cache_dir")
    return LoadingOptions(dtype, attention, None if cache is None else str(cache))
