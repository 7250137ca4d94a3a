"""What a LLaVA is made of, as one JSON file: the two sub-models, the projector, and how pictures and text are
prepared.
"""

from typing import ClassVar

from transformers import AutoConfig, PretrainedConfig

from llava.errors import UsageError

SELECT_FEATURES = ("patch", "cls_patch")


class LlavaConfig(PretrainedConfig):
    """Configuration of `LlavaForCausalLM`; the `mm_*` names and `image_aspect_ratio` are those of LLaVA-1.5
    configs.

    `conv_template` names the conversation template that the weights were tuned with,
    `tokenizer_model_max_length` the tokens of one sample (image included) that they were tuned for.
    """

    model_type = "llava_personal"
    sub_configs: ClassVar = {"text_config": AutoConfig, "vision_config": AutoConfig}  # pyright: ignore

    def __init__(
        self,
        text_config: PretrainedConfig | dict | None = None,
        vision_config: PretrainedConfig | dict | None = None,
        **kwargs: object,
    ) -> None:
        self.text_config = as_config(text_config, "llama")
        self.vision_config = as_config(vision_config, "clip_vision_model")
        self.mm_projector_type = kwargs.pop("mm_projector_type", "mlp2x_gelu")
        self.mm_vision_select_layer = kwargs.pop("mm_vision_select_layer", -2)
        self.mm_vision_select_feature = kwargs.pop("mm_vision_select_feature", "patch")
        self.image_aspect_ratio = kwargs.pop("image_aspect_ratio", "pad")
        self.conv_template = kwargs.pop("conv_template", "v1")
        self.tokenizer_model_max_length = kwargs.pop("tokenizer_model_max_length", 2048)
        self.mm_vision_tower = kwargs.pop("mm_vision_tower", None)
        self.mm_use_im_start_end = kwargs.pop("mm_use_im_start_end", False)
        self.mm_use_im_patch_token = kwargs.pop("mm_use_im_patch_token", False)
        self.tokenizer_padding_side = kwargs.pop("tokenizer_padding_side", "right")
        kwargs.setdefault("tie_word_embeddings", bool(self.text_config.tie_word_embeddings))
        if self.mm_vision_select_feature not in SELECT_FEATURES:
            raise UsageError(
                f"mm_vision_select_feature is {self.mm_vision_select_feature!r}; "
                f"use one of {', '.join(SELECT_FEATURES)}."
            )
        super().__init__(**kwargs)

    @property
    def num_patches(self) -> int:
        """Tokens that one picture takes in the language model: a square grid of patches, plus the class token
        if kept.
        """
        side = self.vision_config.image_size // self.vision_config.patch_size
        return side * side + (1 if self.mm_vision_select_feature == "cls_patch" else 0)


def as_config(config: PretrainedConfig | dict | None, default_type: str) -> PretrainedConfig:
    """A sub-model's configuration from what JSON or a caller gives; `default_type` when the dictionary names
    none.
    """
    if isinstance(config, PretrainedConfig):
        return config
    values = dict(config or {})
    return AutoConfig.for_model(values.pop("model_type", default_type), **values)
