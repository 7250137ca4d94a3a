"""Read checkpoints of transformers' own LLaVA (`LlavaForConditionalGeneration`), in every layout it wrote."""

from pathlib import Path

from transformers import PretrainedConfig

from llava.errors import UsageError
from llava.images import PREPROCESSOR_NAMES
from llava.model.checkpoint import read_files, rename
from llava.model.config import LlavaConfig
from llava.model.contents import CONFIG_NAME, Contents
from llava.model.foreign_config import config_of
from llava.model.key_names import hf_table
from llava.model_files import blame, read_model_json

MODEL_TYPE = "llava"
SELECT_FEATURES = {"default": "patch", "full": "cls_patch"}
VISION_TYPES = ("clip_vision_model",)
VISION_DEFAULTS = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
"""What transformers takes when a LLaVA's config.json has no vision_config at all."""
KEPT = (
    "image_token_index",
    "vision_feature_layer",
    "vision_feature_select_strategy",
    "conv_template",
    "tokenizer_model_max_length",
)
"""Kept where config.json has them; the last two are there when this package wrote it."""
SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def is_hf(config: dict) -> bool:
    """Whether a config.json is one of transformers' LLaVA (the original's has no text_config)."""
    return config.get("model_type") == MODEL_TYPE and "text_config" in config


def read_hf(folder: Path, config: dict) -> Contents:
    """The contents of a transformers LLaVA; the tokenizer and the image processor lie in the same folder."""
    with blame(folder / CONFIG_NAME):
        ours = hf_config(folder, config)
    tensors = read_files(folder)
    table = hf_table(tensors)
    weights = rename(tensors, table, source=folder)
    return Contents(folder, ours, weights, table, folder, folder)


def hf_config(folder: Path, config: dict) -> LlavaConfig:
    """transformers' configuration as ours; `UsageError` names an option that is not supported."""
    text = dict(config["text_config"])
    text_config = config_of(text, "llama")
    vision = dict(config.get("vision_config") or VISION_DEFAULTS)
    vision_type = vision.pop("model_type", VISION_TYPES[0])
    refuse_unsupported(folder, config, vision_type)
    return LlavaConfig(
        text_config=text_config,
        vision_config=config_of(vision, vision_type),
        mm_projector_type="mlp2x_gelu",
        mm_vision_select_layer=select_layer(config),
        mm_vision_select_feature=SELECT_FEATURES[config.get("vision_feature_select_strategy", "default")],
        image_aspect_ratio=aspect_ratio(folder),
        tie_word_embeddings=bool(config.get("tie_word_embeddings") or text_config.tie_word_embeddings),
        **special_ids(folder, config, text_config),
        **{name: config[name] for name in KEPT if name in config},
    )


def select_layer(config: dict) -> object:
    """The vision layer that is read; a list of one is that one."""
    layer = config.get("vision_feature_layer", -2)
    return layer[0] if isinstance(layer, list) and len(layer) == 1 else layer


def refuse_unsupported(folder: Path, config: dict, vision_type: str) -> None:
    """`UsageError` that names an option which would change the model and is not supported."""
    if vision_type not in VISION_TYPES:
        raise UsageError(
            f"{folder}: the vision model is {vision_type!r}; supported is {', '.join(VISION_TYPES)}."
        )
    wanted = {"projector_hidden_act": "gelu", "multimodal_projector_bias": True}
    for name, value in wanted.items():
        if config.get(name, value) != value:
            raise UsageError(f"{folder}: {name} is {config[name]!r}; supported is {value!r}.")
    if not isinstance(select_layer(config), int):
        raise UsageError(
            f"{folder}: vision_feature_layer is {config['vision_feature_layer']!r}; supported is one layer."
        )
    strategy = config.get("vision_feature_select_strategy", "default")
    if strategy not in SELECT_FEATURES:
        raise UsageError(
            f"{folder}: vision_feature_select_strategy is {strategy!r}; known: {', '.join(SELECT_FEATURES)}."
        )


def special_ids(folder: Path, config: dict, text_config: PretrainedConfig) -> dict[str, object]:
    """Ids of the special tokens: generation_config.json, else config.json, else text_config."""
    file = folder / "generation_config.json"
    generation = read_model_json(file) if file.is_file() else {}
    found = {}
    for name in SPECIAL_IDS:
        values = (generation.get(name), config.get(name), getattr(text_config, name, None))
        found[name] = next((value for value in values if value is not None), None)
    return found


def aspect_ratio(folder: Path) -> str:
    """`pad` when the folder's image processor pads to a square, else `square` (the middle is cropped)."""
    for name in PREPROCESSOR_NAMES:
        if (folder / name).is_file():
            values = read_model_json(folder / name)
            values = values.get("image_processor") or values
            if "do_pad" in values or "crop_size" in values:
                return "pad" if values.get("do_pad") else "square"
    return "square"
