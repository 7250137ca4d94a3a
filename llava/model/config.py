"""What a LLaVA is made of, as one JSON file: the two sub-models, the projector, and how pictures and text are
prepared.
"""

from typing import ClassVar

from transformers import AutoConfig, PretrainedConfig

from llava.anyres import Size, read_pinpoints
from llava.errors import UsageError
from llava.images import ASPECT_RATIOS, MAX_SIDE
from llava.model.foreign_config import config_of
from llava.model.projector import projector_depth
from llava.model.tiles import MERGE_TYPES, Tiling

SELECT_FEATURES = ("patch", "cls_patch")
S2_SCALES = "336,672,1008"
"""What the original takes when a configuration names no scales."""
MAX_TOKENS = 1 << 31
KNOWN = {
    "image_aspect_ratio": (*ASPECT_RATIOS, None),
    "mm_use_im_start_end": (False, True),
    "mm_use_im_patch_token": (False, True),
    "mm_vision_select_feature": SELECT_FEATURES,
    "mm_patch_merge_type": MERGE_TYPES,
    "tokenizer_padding_side": ("right", "left"),
    "s2": (False, True),
}


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
        self.mm_patch_merge_type = kwargs.pop("mm_patch_merge_type", "flat")
        self.image_grid_pinpoints = kwargs.pop("image_grid_pinpoints", None)
        self.s2 = kwargs.pop("s2", False)
        self.s2_scales = kwargs.pop("s2_scales", S2_SCALES)
        kwargs.setdefault("tie_word_embeddings", bool(self.text_config.tie_word_embeddings))
        self.check_options()
        super().__init__(**kwargs)

    def check_options(self) -> None:
        """`UsageError` that names an option which is not known, or does not go with another."""
        for name, known in KNOWN.items():
            found = getattr(self, name)
            if found not in known:
                raise UsageError(f"{name} is {found!r}; known: {', '.join(map(repr, known))}.")
        self.check_numbers()
        squares = {"mm_patch_merge_type": self.mm_patch_merge_type != "flat", "s2": self.s2}
        for name in (name for name, chosen in squares.items() if chosen):
            if self.mm_vision_select_feature != "patch":
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}, which needs a square of patches: "
                    f"mm_vision_select_feature is {self.mm_vision_select_feature!r}, use 'patch'."
                )
        if self.s2 and self.image_aspect_ratio == "anyres":
            raise UsageError("s2 and image_aspect_ratio 'anyres' both cut pictures up; choose one of them.")
        _ = self.scales, self.tiling

    def check_numbers(self) -> None:
        """`UsageError` for a layer that the vision tower does not have, and for lengths that cannot be."""
        depth, layer = self.vision_config.num_hidden_layers, self.mm_vision_select_layer
        if type(layer) is not int or not -depth - 1 <= layer <= depth:
            raise UsageError(
                f"mm_vision_select_layer is {layer!r}; the vision tower has {depth} layers, so a number from "
                f"{-depth - 1} to {depth} was wanted."
            )
        length = self.tokenizer_model_max_length
        if type(length) is not int or not 1 <= length <= MAX_TOKENS:
            raise UsageError(f"tokenizer_model_max_length is {length!r}; a number of tokens was wanted.")
        if not isinstance(self.conv_template, str):
            raise UsageError(f"conv_template is {self.conv_template!r}; the name of a template was wanted.")
        projector_depth(self.mm_projector_type)

    @property
    def num_patches(self) -> int:
        """Tokens that one picture takes in the language model: a square grid of patches, plus the class token
        if kept.
        """
        side = self.tiling.side
        return side * side + (1 if self.mm_vision_select_feature == "cls_patch" else 0)

    def num_image_tokens(self, size: Size) -> int:
        """Tokens of a picture of (width, height) pixels, which matters where pictures are cut into tiles."""
        if self.image_aspect_ratio != "anyres":
            return self.num_patches
        if self.mm_patch_merge_type == "flat":  # with the class token of every tile, if it is kept
            across, down = self.tiling.grid(size)
            return self.num_patches * (1 + across * down)
        return self.tiling.count(size)

    @property
    def tiling(self) -> Tiling:
        """How pictures are cut into tiles and put together."""
        side = self.vision_config.image_size // self.vision_config.patch_size
        pinpoints = None
        if self.image_aspect_ratio == "anyres":
            pinpoints = tuple(read_pinpoints(self.image_grid_pinpoints))
            smallest, largest = min(map(min, pinpoints)), max(map(max, pinpoints))
            if smallest < self.vision_config.image_size or largest > MAX_SIDE:
                raise UsageError(
                    f"image_grid_pinpoints holds sides from {smallest} to {largest}; from the vision tower's "
                    f"{self.vision_config.image_size} to {MAX_SIDE} are possible."
                )
        return Tiling(self.mm_patch_merge_type, pinpoints, self.vision_config.image_size, side)

    @property
    def scales(self) -> tuple[int, ...]:
        """Sizes in pixels at which a picture is seen (S2), smallest first; empty for one size alone."""
        if not self.s2:
            return ()
        return read_scales(self.s2_scales, self.vision_config.image_size)

    @property
    def vision_width(self) -> int:
        """Numbers per patch that come to the projector."""
        return self.vision_config.hidden_size * max(len(self.scales), 1)


def read_scales(scales: object, image_size: int) -> tuple[int, ...]:
    """`336,672,1008` or a list as sizes, smallest first; they are the tower's size and multiples of it."""
    words = scales.split(",") if isinstance(scales, str) else scales
    try:
        sizes = tuple(sorted(int(word) for word in words))  # pyright: ignore
    except (TypeError, ValueError):
        sizes = ()
    if (
        not sizes
        or sizes[0] != image_size
        or any(size % image_size for size in sizes)
        or sizes[-1] > MAX_SIDE
    ):
        raise UsageError(
            f"s2_scales is {scales!r}; the vision tower takes pictures of {image_size} pixels, so it must "
            f"hold {image_size} and multiples of it, such as '{image_size},{2 * image_size}'."
        )
    return sizes


def as_config(config: PretrainedConfig | dict | None, default_type: str) -> PretrainedConfig:
    """A sub-model's configuration from what JSON or a caller gives; `default_type` when the dictionary names
    none.
    """
    if isinstance(config, PretrainedConfig):
        return config
    return config_of(dict(config or {}), default_type)
