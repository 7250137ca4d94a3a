"""config.json of a stranger, as plain data: what could run code is left out, and sizes are checked before any
object is made of them.
"""

import math
import re
from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard

from transformers import AutoConfig, PretrainedConfig

from llava.errors import UsageError

LEFT_OUT = frozenset(
    (
        "auto_map",
        "trust_remote_code",
        "custom_pipelines",
        "attn_implementation",
        "experts_implementation",
        "num_labels",
        "id2label",
        "label2id",
        "attribute_map",
        "sub_configs",
    )
)
"""Names of remote code, of kernels that transformers would fetch, of labels, which no LLaVA has, and of what
belongs to transformers' classes.
"""
SIZES = {
    r"(num_(hidden_)?|n_|encoder_|decoder_)layers?": 1024,
    r"(hidden|(moe_)?intermediate|embedding|ffn|projection)_(size|dim)": 1 << 20,
    r"n_embd|n_inner|d_model|d_ff": 1 << 20,
    r"n(um)?_(attention_|key_value_|kv_)?heads?": 1 << 12,
    r"head_dim": 1 << 16,
    r"num_(local_)?experts": 1 << 12,
    r"vocab_size": 1 << 24,
    r"num_channels": 16,
    r"image_size|patch_size": 1 << 13,
    r"max_position_embeddings|n_positions": 1 << 30,
}  # fmt: skip
"""Names of whole numbers from 1 on, and the largest that is believed."""
NUMBERS = {r".*(eps|epsilon)": (0.0, 1.0), r"rope_theta": (0.0, 1e15), r".*dropout|.*_pdrop": (-1e-9, 1.0)}
"""Names of numbers, and what they lie between."""
MAX_PATCHES = 1 << 16
"""Patches of one picture."""
MAX_DEPTH = 8
"""Objects within objects."""


def safe_values(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config.json's values without private names and `LEFT_OUT`, at every depth.

    `UsageError` for sizes and numbers that cannot be, and for weights that are quantised on disk.
    """
    if values.get("quantization_config"):
        raise UsageError(
            "quantization_config is set, but weights that are quantised on disk are not read; get those in "
            "16 or 32 bits (--load-4bit and --load-8bit make them small while loading)."
        )
    return without_code(values, 0)


def without_code(values: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """The values that are data, checked one by one."""
    if depth > MAX_DEPTH:
        raise UsageError("objects are nested too deeply; get the file again.")
    kept: dict[str, Any] = {}
    for name, value in values.items():
        if name.startswith("_") or name in LEFT_OUT:
            continue
        check_value(name, value)
        kept[name] = without_code(value, depth + 1) if isinstance(value, dict) else value
    return kept


def check_value(name: str, value: object) -> None:
    """`UsageError` for a size that is no whole number in its range, and for a number that is none."""
    if value is None:
        return
    if name == "model_type" and not isinstance(value, str):
        raise UsageError(f"model_type is {value!r}; a text was wanted.")
    for pattern, most in SIZES.items():
        if re.fullmatch(pattern, name):
            check_size(name, value, most)
    for pattern, (low, high) in NUMBERS.items():
        if re.fullmatch(pattern, name) and not (is_number(value) and low < value <= high):
            raise UsageError(
                f"{name} is {shown(value)}; a number above {low:g}, at most {high:g} was wanted."
            )
    if isinstance(value, float) and math.isnan(value):
        raise UsageError(f"{name} is NaN; a number was wanted.")


def check_size(name: str, value: object, most: int) -> None:
    """`UsageError` unless it is a whole number (or a list of them, where a family has one per layer)."""
    for entry in value if isinstance(value, list) and value else [value]:
        if type(entry) is not int or not 1 <= entry <= most:
            raise UsageError(f"{name} is {shown(value)}; a whole number from 1 to {most:,} was wanted.")


def is_number(value: object) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return type(value) in (int, float) and math.isfinite(value)  # type: ignore[arg-type]


def shown(value: object) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."


def config_of(values: Mapping[str, Any], default_type: str) -> PretrainedConfig:
    """transformers' configuration of a sub-model, whose type `model_type` names; `UsageError` when a value
    cannot be.
    """
    kind = values.get("model_type", default_type)
    return from_values(type(AutoConfig.for_model(kind)), values)


def from_values(chosen: type[PretrainedConfig], values: Mapping[str, Any]) -> Any:
    """A configuration of a class from safe values, except those that would hide its methods."""
    fitting = {name: value for name, value in safe_values(values).items() if not hides(chosen, name)}
    config = chosen.from_dict(fitting)
    check_model(config)
    return config


def hides(chosen: type[PretrainedConfig], name: str) -> bool:
    """Whether a value of this name would stand in the way of the class's own."""
    own = getattr(chosen, name, None)
    return callable(own) or isinstance(own, dict) or (isinstance(own, property) and own.fset is None)


def check_model(config: PretrainedConfig) -> None:
    """`UsageError` where sizes do not go with each other."""
    for part in parts_of(config):
        width, heads = getattr(part, "hidden_size", None), getattr(part, "num_attention_heads", None)
        groups = getattr(part, "num_key_value_heads", None)
        if is_whole(width) and is_whole(heads) and not getattr(part, "head_dim", None) and width % heads:
            raise UsageError(f"hidden_size {width} is no multiple of num_attention_heads {heads}.")
        if is_whole(groups) and is_whole(heads) and heads % groups:
            raise UsageError(f"num_attention_heads {heads} is no multiple of num_key_value_heads {groups}.")
        picture, patch = getattr(part, "image_size", None), getattr(part, "patch_size", None)
        if is_whole(picture) and is_whole(patch) and not 1 <= (picture // patch) ** 2 <= MAX_PATCHES:
            raise UsageError(
                f"image_size {picture} and patch_size {patch} give {(picture // patch) ** 2:,} patches; 1 "
                f"to {MAX_PATCHES:,} are possible."
            )


def is_whole(value: object) -> TypeGuard[int]:
    """Whether it is one whole number."""
    return type(value) is int


def parts_of(config: PretrainedConfig) -> Iterator[PretrainedConfig]:
    """A configuration and those within it."""
    yield config
    for name in config.sub_configs:
        part = getattr(config, name, None)
        if isinstance(part, PretrainedConfig):
            yield from parts_of(part)
