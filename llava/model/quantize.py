"""The language model's linear layers in 8 or 4 bits (bitsandbytes); all the rest stays as it is."""

from typing import Any

import torch
from torch import nn

from llava.errors import UsageError
from llava.model.llava import LlavaForCausalLM


def import_bitsandbytes() -> Any:
    """The optional package; `UsageError` with the remedy where it is missing."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise UsageError(
            f"loading in 8 or 4 bits needs bitsandbytes, which cannot be imported ({error}); pip install "
            "bitsandbytes, or leave out load_8bit and load_4bit."
        ) from None
    return bitsandbytes


def quantize(model: LlavaForCausalLM, bits: int, device: torch.device) -> None:
    """Replace the language model's linear layers on the way to `device`, in place.

    4 bits are NF4 with quantized constants, as in the original; 8 bits are LLM.int8() with its threshold of
    6. Numbers are computed in the type that the model has.
    """
    package = import_bitsandbytes()
    layers = model.model.language_model
    names = [name for name, module in layers.named_modules() if type(module) is nn.Linear]
    for name in names:
        linear = layers.get_submodule(name)
        layers.set_submodule(name, quantized(package.nn, linear, bits).to(device))


def quantized(layers: Any, linear: Any, bits: int) -> nn.Module:
    """A layer with the weights of `linear`; they become small when it goes to its device."""
    sizes = (linear.in_features, linear.out_features, linear.bias is not None)
    weight = linear.weight.data
    if bits == 4:
        kind = {"compress_statistics": True, "quant_type": "nf4"}
        new = layers.Linear4bit(*sizes, compute_dtype=weight.dtype, **kind)
        new.weight = layers.Params4bit(weight, requires_grad=False, **kind)
    else:
        new = layers.Linear8bitLt(*sizes, has_fp16_weights=False, threshold=6.0)
        new.weight = layers.Int8Params(weight, requires_grad=False, has_fp16_weights=False)
    if linear.bias is not None:
        new.bias = linear.bias
    return new
