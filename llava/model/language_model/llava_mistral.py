"""The original's names; see `llava.model.llava`."""

from llava.model.config import LlavaConfig as LlavaMistralConfig
from llava.model.llava import LlavaForCausalLM as LlavaMistralForCausalLM

__all__ = ["LlavaMistralConfig", "LlavaMistralForCausalLM"]
