"""The model: vision tower, projector and language model composed, its checkpoints, and LoRA.

The original's class names stand for our one class; they are looked up on first use, so importing stays cheap.
"""

from importlib import import_module

ORIGINAL_NAMES = {
    "LlavaForCausalLM": ("llava.model.llava", "LlavaForCausalLM"),
    "LlavaLlamaForCausalLM": ("llava.model.llava", "LlavaForCausalLM"),
    "LlavaMistralForCausalLM": ("llava.model.llava", "LlavaForCausalLM"),
    "LlavaConfig": ("llava.model.config", "LlavaConfig"),
    "LlavaMistralConfig": ("llava.model.config", "LlavaConfig"),
}

__all__ = list(ORIGINAL_NAMES)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    """A class by one of its names."""
    if name not in ORIGINAL_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = ORIGINAL_NAMES[name]
    return getattr(import_module(module), attribute)
