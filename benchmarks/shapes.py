"""The sizes of models that are measured, and random weights for them that depend on names and a seed alone.

| shape | language model | vision tower | image tokens |
|---|---|---|---|
| mini | the mini world's base: 5 layers of 192 | 5 layers of 128, 96 px | 64 |
| mid | 8 layers of 512 | 4 layers of 256, 336 px | 576 |
| 1b | 22 layers of 2048 (1.1B) | CLIP-L/336 | 576 |
| llava-1.5-7b | 32 layers of 4096 | CLIP-L/336 | 576 |
| llava-1.5-13b | 40 layers of 5120 | CLIP-L/336 | 576 |
"""

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import nn

    from llava.model.config import LlavaConfig

STD = 0.02
"""Of random matrices, as LLaMA is initialised."""


@dataclass(frozen=True)
class Transformer:
    """Width, layers, heads, feed-forward width; key-value heads of a language model."""

    width: int
    layers: int
    heads: int
    inner: int
    kv_heads: int = 0


@dataclass(frozen=True)
class Shape:
    """A LLaVA's sizes; `checkpointing`: activations of a usual batch do not fit beside it on one device."""

    text: Transformer
    vision: Transformer
    vocabulary: int = 32000
    image_size: int = 336
    patch_size: int = 14
    tied: bool = False
    checkpointing: bool = False

    @property
    def num_patches(self) -> int:
        """Tokens of a picture."""
        return (self.image_size // self.patch_size) ** 2


CLIP_L = Transformer(width=1024, layers=24, heads=16, inner=4096)
SHAPES = {
    "mini": Shape(
        Transformer(192, 5, 6, 512, 6),
        Transformer(128, 5, 4, 512),
        vocabulary=1024,
        image_size=96,
        patch_size=12,
        tied=True,
    ),
    "mid": Shape(Transformer(512, 8, 8, 1376, 8), Transformer(256, 4, 4, 1024)),
    "1b": Shape(Transformer(2048, 22, 32, 5632, 4), CLIP_L),
    "llava-1.5-7b": Shape(Transformer(4096, 32, 32, 11008, 32), CLIP_L, checkpointing=True),
    "llava-1.5-13b": Shape(Transformer(5120, 40, 40, 13824, 40), CLIP_L, checkpointing=True),
}


def config_of(shape: Shape) -> "LlavaConfig":
    """Our configuration of a shape."""
    from transformers import CLIPVisionConfig, LlamaConfig

    from llava.model.config import LlavaConfig

    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.text.width,
        num_hidden_layers=shape.text.layers,
        num_attention_heads=shape.text.heads,
        num_key_value_heads=shape.text.kv_heads,
        intermediate_size=shape.text.inner,
        max_position_embeddings=4096,
        tie_word_embeddings=shape.tied,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    vision = CLIPVisionConfig(
        hidden_size=shape.vision.width,
        num_hidden_layers=shape.vision.layers,
        num_attention_heads=shape.vision.heads,
        intermediate_size=shape.vision.inner,
        image_size=shape.image_size,
        patch_size=shape.patch_size,
    )
    return LlavaConfig(text_config=text, vision_config=vision, mm_projector_type="mlp2x_gelu")


def fill_randomly(model: "nn.Module", *, seed: int, device: "torch.device") -> None:
    """Give every weight random numbers on `device`, from its plain name, its shape and the seed alone.

    Matrices are normal, vectors 1 (norms) or 0 (biases); the same weight of a wrapped model, or of
    transformers' LLaVA, gets the same numbers. Weights without memory get it.
    """
    import torch
    from torch import nn

    for name, weight in list(model.named_parameters()):
        plain = plain_name(name)
        generator = torch.Generator(device).manual_seed(zlib.crc32(f"{seed}/{plain}".encode()))
        value = torch.empty(weight.shape, dtype=torch.float32, device=device)
        if weight.dim() > 1 or plain.endswith("class_embedding"):
            value.normal_(std=STD, generator=generator)
        else:
            value.fill_(1.0 if plain.endswith("weight") else 0.0)
        if weight.is_meta:
            owner, _, leaf = name.rpartition(".")
            made = nn.Parameter(value.to(weight.dtype), requires_grad=weight.requires_grad)
            setattr(model.get_submodule(owner), leaf, made)
        else:
            weight.data.copy_(value)


def plain_name(name: str) -> str:
    """A weight's name without what PEFT and transformers' older modules put around it."""
    for extra in ("base_model.model.", "base_layer.", "vision_model.", "modules_to_save.default."):
        name = name.replace(extra, "")
    return name.replace("original_module.", "").replace(".default", "")
