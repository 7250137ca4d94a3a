"""The original's names; see `llava.model.llava`."""

from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM as LlavaLlamaForCausalLM

__all__ = ["LlavaConfig", "LlavaLlamaForCausalLM"]
