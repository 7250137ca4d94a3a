"""Read checkpoints of the original LLaVA: full, LoRA with its other trained tensors, or the projector alone.

Their config.json holds the language model's options at its top level, and the vision tower by name.
"""

import logging
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoConfig, PretrainedConfig

from llava.errors import UsageError
from llava.images import ASPECT_RATIOS
from llava.model.checkpoint import read_files, read_weights, rename
from llava.model.config import LlavaConfig
from llava.model.contents import CONFIG_NAME, Adapter, Contents, read_config, read_json
from llava.model.foreign_config import config_of, hides
from llava.model.key_names import PLAIN_LANGUAGE_MODEL, KeyTable, hf_table, original_table
from llava.model.locations import find_folder
from llava.model.lora import WRAPPED
from llava.model.stored_tensors import Weights, read_tensors
from llava.model.vision_tower import load_vision_tower, read_vision_config
from llava.model.weight_files import (
    ADAPTER_CONFIG_NAME,
    NON_LORA_NAME,
    PROJECTOR_NAME,
    adapter_file,
    has_weights,
)
from llava.model_files import blame

logger = logging.getLogger(__name__)

TEXT_TYPES = {"llava_llama": "llama", "llava": "llama", "llava_mistral": "mistral"}
"""model_type of the original's configurations, and of the language model inside."""
VISION_TYPE = "clip_vision_model"
CONV_TEMPLATES = {"llama": "v1", "mistral": "mistral_instruct"}
NOT_KEPT = ("architectures", "_name_or_path", "transformers_version", "model_type", "torch_dtype", "dtype")
OLD_TEXT_NAMES = ("rope_theta", "rope_scaling")
TOWER = "model.vision_tower."


def is_original(config: dict) -> bool:
    """Whether a config.json is one of the original's (transformers' own LLaVA has a text_config)."""
    return config.get("model_type") in TEXT_TYPES and "text_config" not in config


def read_original(folder: Path, config: dict, model_base: str | None) -> Contents:
    """The contents of an original checkpoint; which of the three kinds it is, its files say."""
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        return read_lora(folder, config, model_base)
    if has_weights(folder):
        return read_full(folder, config)
    if (folder / PROJECTOR_NAME).is_file():
        return read_projector_stage(folder, config, model_base)
    raise UsageError(
        f"{folder} has a config.json, but neither weights, nor {ADAPTER_CONFIG_NAME} (LoRA), "
        f"nor {PROJECTOR_NAME} (projector only)."
    )


def refuse_unsupported(folder: Path, config: dict) -> None:
    """`UsageError` that names an option which would change the model and is not supported."""
    found = config.get("image_aspect_ratio")
    if found not in (*ASPECT_RATIOS, None):
        raise UsageError(
            f"{folder}: image_aspect_ratio is {found!r}, which is not supported; known: "
            f"{', '.join(map(repr, ASPECT_RATIOS))}."
        )
    if not isinstance(config.get("mm_vision_tower"), str):
        raise UsageError(f"{folder}: mm_vision_tower in config.json does not name a vision tower.")


def original_config(folder: Path, config: dict, tower_folder: Path) -> LlavaConfig:
    """The original's flat configuration as ours; its own names stay attributes.

    Raises `UsageError` for an option that is not supported.
    """
    refuse_unsupported(folder, config)
    with blame(folder / CONFIG_NAME):
        return checked_original(config, read_vision_config(tower_folder))


def checked_original(config: dict, vision: PretrainedConfig) -> LlavaConfig:
    """The same of values whose options are known."""
    text_type = TEXT_TYPES[config["model_type"]]
    text_names = {*AutoConfig.for_model(text_type).to_dict(), *OLD_TEXT_NAMES} - {*NOT_KEPT}
    text = {key: value for key, value in config.items() if key in text_names}
    special = ("bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings")
    rest = {
        key: value
        for key, value in config.items()
        if (key not in text_names or key in special)
        and key not in NOT_KEPT
        and value is not None
        and not hides(LlavaConfig, key)
    }
    defaults = {
        "mm_projector_type": "linear",
        "image_aspect_ratio": "square",
        "conv_template": CONV_TEMPLATES[text_type],
    }
    return LlavaConfig(
        text_config=config_of(text, text_type),
        vision_config=vision,
        **(defaults | rest),
    )


def tower_of(folder: Path, config: dict) -> Path:
    """The folder of the vision tower that a configuration names; `UsageError` when it is no CLIP."""
    refuse_unsupported(folder, config)
    tower_folder = find_folder(config["mm_vision_tower"], beside=folder)
    kind = read_vision_config(tower_folder).model_type
    if kind != VISION_TYPE:
        raise UsageError(f"{folder}: mm_vision_tower names a {kind!r} model; supported is {VISION_TYPE!r}.")
    return tower_folder


def choose_tower(weights: Weights, tower_folder: Path) -> Weights:
    """Weights with the right vision tower: by facts, the one inside or the one that the configuration names.

    The original always takes the named one. What is inside is most often that one, rounded on saving: then
    the named one is taken here too. Where they differ by more, the tower was tuned, and stays.
    """
    inside = {key for key in weights if key.startswith(TOWER)}
    if inside and not has_weights(tower_folder):
        return weights
    named = load_vision_tower(tower_folder, dtype="auto").state_dict()
    named = {f"{TOWER}{key}": value for key, value in named.items()}
    if not inside:
        return weights | named
    rounded = inside == named.keys() and all(is_rounded(named[key], weights[key]) for key in inside)
    if rounded:
        return weights | named
    logger.info("The checkpoint holds a vision tower of its own; %s is not used.", tower_folder)
    return weights


def is_rounded(exact: Tensor, stored: Tensor) -> bool:
    """Whether `stored` is `exact`, cast to its type."""
    return exact.shape == stored.shape and torch.equal(stored, exact.to(stored.dtype))


def read_full(folder: Path, config: dict) -> Contents:
    """All weights in the folder; the vision tower there, or where the configuration says."""
    tower_folder = tower_of(folder, config)
    ours = original_config(folder, config, tower_folder)
    table = original_table(ours.mm_projector_type)
    weights = choose_tower(read_weights(folder, table), tower_folder)
    return Contents(folder, ours, weights, table, folder, tower_folder)


def base_weights(base: Path) -> Weights:
    """Tensors of an adapter's base by our names: a plain language model, or a LLaVA of any layout."""
    config = read_config(base)
    tensors = read_files(base)
    if is_original(config):
        table = original_table(config.get("mm_projector_type", "linear"))
    elif "text_config" in config:
        table = hf_table(tensors)
    else:
        table = PLAIN_LANGUAGE_MODEL
    return rename(tensors, table, source=base)


def unwrapped(tensors: dict[str, Tensor], table: KeyTable, file: Path) -> Weights:
    """Tensors of a PEFT-wrapped original model by our names."""
    return rename({key.removeprefix(WRAPPED): value for key, value in tensors.items()}, table, source=file)


def read_lora(folder: Path, config: dict, model_base: str | None) -> Contents:
    """A base, the tensors that were trained whole, and the adapter; the tokenizer is the base's."""
    settings = read_json(folder, ADAPTER_CONFIG_NAME)
    name = model_base or settings.get("base_model_name_or_path")
    if not name or not isinstance(name, str | Path):
        raise UsageError(f"{folder} is an adapter that names no base model; name it with --model-base.")
    base = find_folder(name, beside=folder)
    tower_folder = tower_of(folder, config)
    ours = original_config(folder, config, tower_folder)
    table = original_table(ours.mm_projector_type)
    trained = unwrapped(read_tensors(folder / NON_LORA_NAME), table, folder / NON_LORA_NAME)
    file = adapter_file(folder)
    adapter = Adapter(settings, unwrapped(read_tensors(file), table, file))
    weights = choose_tower(base_weights(base) | trained, tower_folder)
    return Contents(folder, ours, weights, table, base, tower_folder, adapter)


def read_projector_stage(folder: Path, config: dict, model_base: str | None) -> Contents:
    """A projector with the plain language model that `model_base` names; the tokenizer is the base's."""
    if not model_base:
        raise UsageError(
            f"{folder} holds only a projector ({PROJECTOR_NAME}); name its language model with --model-base."
        )
    base = find_folder(model_base, beside=folder)
    tower_folder = tower_of(folder, config)
    ours = original_config(folder, config, tower_folder)
    table = original_table(ours.mm_projector_type)
    file = folder / PROJECTOR_NAME
    weights = choose_tower(base_weights(base) | unwrapped(read_tensors(file), table, file), tower_folder)
    return Contents(folder, ours, weights, table, base, tower_folder)
