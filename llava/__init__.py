"""LLaVA that learns who and what is in your own pictures, and proves what it learned and what it forgot."""

__version__ = "2.0.0"


def __getattr__(name: str) -> object:
    """`LlavaLlamaForCausalLM`, as the original's package names it; looked up on first use."""
    if name != "LlavaLlamaForCausalLM":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llava.model.llava import LlavaForCausalLM

    return LlavaForCausalLM
