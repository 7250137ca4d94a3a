"""LLaVA: a vision tower, a projector and a language model, composed; pictures become tokens among the words.

The attribute names are those of transformers' LlavaForConditionalGeneration, so that a LoRA adapter trained
here loads there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoModel, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError
from llava.model.attention import attention_mask_for
from llava.model.config import LlavaConfig
from llava.model.fusion import embed_text, write_features
from llava.model.loss import LanguageHead, summed_cross_entropy
from llava.model.original_form import Expanded, Images, choose_pictures, expand, placeholders_per_row
from llava.model.prefix_attention import LONG_ROW, UNUSED_MASK, layout_of
from llava.model.prefix_attention import NAME as TWO_PART
from llava.model.projector import MultiModalProjector
from llava.model.tiles import read_size
from llava.model.vision_tower import encode_pictures, encode_scales


@dataclass
class LlavaOutput(ModelOutput):
    """`loss` when targets or labels were given, else `logits` (B, T, vocabulary) and the key-value cache."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    past_key_values: object | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class LlavaModel(nn.Module):
    """The three parts, without the language model's head."""

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__()
        self.vision_tower = AutoModel.from_config(config.vision_config)
        width = config.text_config.hidden_size
        self.multi_modal_projector = MultiModalProjector(config.mm_projector_type, config.vision_width, width)
        self.language_model = AutoModel.from_config(config.text_config)
        if config.tiling.has_newline:
            self.image_newline = nn.Parameter(torch.randn(width) / width**0.5)


class LlavaForCausalLM(PreTrainedModel, GenerationMixin):
    """CLIP tower + projector + any causal language model of transformers."""

    config_class = LlavaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities: ClassVar = ["image", "text"]
    accepts_loss_kwargs = True
    runs_every_part = False
    """Whether a batch without a picture runs tower and projector also where nothing is trained."""
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _skip_keys_device_placement: ClassVar = ["past_key_values"]
    _tied_weights_keys: ClassVar = {"lm_head.weight": "model.language_model.embed_tokens.weight"}

    def __init__(self, config: LlavaConfig) -> None:
        super().__init__(config)
        self.model = LlavaModel(config)
        text = config.text_config
        self.lm_head = LanguageHead(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    @property
    def num_patches(self) -> int:
        """Tokens of one picture."""
        return self.config.num_patches

    def get_input_embeddings(self) -> nn.Module:
        return self.model.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.model.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = LanguageHead.of(value) if type(value) is nn.Linear else value

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Pictures to features ready for the language model: (I, 3, H, W) -> (I, P, D)."""
        return self.project(self.tower_features(pixel_values))

    def tower_features(self, pixel_values: Tensor) -> Tensor:
        """What the tower sees, at all scales: (I, 3, H, W) -> (I, P, V); no graph while it is frozen."""
        encode = partial(
            encode_pictures,
            self.model.vision_tower,
            layer=self.config.mm_vision_select_layer,
            feature=self.config.mm_vision_select_feature,
        )
        scales = self.config.scales
        return encode_scales(encode, pixel_values, scales=scales) if scales else encode(pixel_values)

    def project(self, vision_features: Tensor) -> Tensor:
        """The tower's features to the language model's width: (I, P, V) -> (I, P, D)."""
        weight = next(self.model.multi_modal_projector.parameters(), None)
        return self.model.multi_modal_projector(
            vision_features if weight is None else vision_features.to(weight.dtype)
        )

    def picture_features(self, images: Images, image_sizes: Sequence | None = None) -> Sequence[Tensor]:
        """Features of pictures that may come in tiles, one (P, D) each.

        A tensor (I, 3, H, W) is encoded as it is. In a list, or a tensor (I, tiles, 3, H, W), each entry is a
        picture with its tiles behind it, put together by mm_patch_merge_type; `image_sizes` are the (width,
        height) of the files.
        """
        if not len(images):
            return []
        if isinstance(images, Tensor) and images.dim() == 4:
            return list(self.encode_images(images))
        parts = [image if image.dim() == 4 else image[None] for image in images]
        features = self.encode_images(torch.cat(parts)).split([len(part) for part in parts])
        sizes = [None] * len(parts) if image_sizes is None else [read_size(size) for size in image_sizes]
        if len(sizes) != len(parts):
            raise UsageError(f"{len(parts)} pictures came, but {len(sizes)} image_sizes; give one for each.")
        newline = getattr(self.model, "image_newline", None)
        tiling = self.config.tiling
        return [tiling.merged(one, size, newline) for one, size in zip(features, sizes, strict=True)]

    def fuse(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None,
        image_features: Tensor | Sequence[Tensor] | None,
        vision_features: Tensor | None = None,
    ) -> Tensor:
        """Embeddings (B, T, D) of ids whose pictures stand as one placeholder per patch.

        Pictures come as pixels, as `image_features`, or as the tower's features (I, P, V), of which there may
        be none. A training batch without a picture still runs tower and projector on a black one (the
        projector alone on zeros, where the tower's features come ready-made), multiplied by zero: every rank
        then builds the same graph (ZeRO-3 hangs otherwise), and the projector's gradient is zero, not
        missing.
        """
        embeddings = embed_text(self.get_input_embeddings(), input_ids)
        if vision_features is not None and len(vision_features):
            image_features = self.project(vision_features)
        elif image_features is None and pixel_values is not None:
            image_features = self.encode_images(pixel_values)
        if image_features is not None:
            return write_features(embeddings, input_ids, image_features)
        if bool((input_ids == IMAGE_TOKEN_INDEX).any()):
            raise ValueError(
                "the token ids hold image placeholders, but no pictures were given (pixel_values)."
            )
        if self.runs_every_part or (self.training and torch.is_grad_enabled()):
            if vision_features is None:
                size = self.config.vision_config.image_size
                nothing = self.encode_images(torch.zeros(1, 3, size, size, device=input_ids.device))
            else:
                nothing = self.project(vision_features.new_zeros(1, *vision_features.shape[1:]))
            embeddings = embeddings + 0.0 * nothing.sum().to(embeddings.dtype)
        return embeddings

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: object | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | Sequence[Tensor] | None = None,
        vision_features: Tensor | None = None,
        group_ids: Tensor | None = None,
        branch_ids: Tensor | None = None,
        targets: Tensor | None = None,
        images: Images | None = None,
        image_sizes: Sequence | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int = 0,
        num_items_in_batch: Tensor | int | None = None,
        **kwargs: object,
    ) -> LlavaOutput:
        """One pass; the loss is a mean over targets, of this batch or of `num_items_in_batch` (the global
        batch).

        Args:
            input_ids: (B, T), one `IMAGE_TOKEN_INDEX` per patch; with `images`, one per picture (the original
            form).
            attention_mask: (B, T) with 1 for tokens; leave out with `group_ids`.
            position_ids: (B, T); in packs they restart after the prefix in each branch.
            labels: (B, T) ids or `IGNORE_INDEX`; position t is predicted from t - 1.
            pixel_values: (I, 3, H, W), in the order of their placeholders.
            image_features: (I, P, D) from `encode_images`, or what `picture_features` gives.
            vision_features: (I, P, V) from `tower_features`, in place of pixel_values; I may be 0.
            group_ids, branch_ids: (B, T), see `llava.model.attention`; -1 in group_ids is padding.
            targets: (N, 3) rows of (row, position that predicts, id); logits are computed there only.
            images, image_sizes: pictures in the original calling form, see `picture_features`.
            logits_to_keep: logits of the last so many positions only; 0 = all.
        """
        if images is not None and input_ids is not None and input_ids.shape[1] > 1:  # no step of decoding
            expanded, features = self.from_original_form(
                input_ids, attention_mask, labels, images=images, image_sizes=image_sizes
            )
            input_ids, attention_mask, labels = vars(expanded).values()
            image_features, position_ids = features or None, None  # positions were one per picture
        if inputs_embeds is None:
            inputs_embeds = self.fuse(input_ids, pixel_values, image_features, vision_features)
        if group_ids is not None:
            attention_mask = self.pack_mask(group_ids, branch_ids, inputs_embeds.dtype, kwargs)
        if targets is None and labels is not None:
            targets = targets_of_labels(labels)
        kwargs["return_dict"] = True  # PEFT passes it, too
        outputs = self.model.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache if targets is None else False,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        loss = None if targets is None else self.loss_at(hidden, targets, num_items_in_batch)
        if loss is not None and labels is None:
            return LlavaOutput(loss=loss)
        logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        return LlavaOutput(loss, logits, outputs.past_key_values, outputs.hidden_states, outputs.attentions)

    def pack_mask(
        self, group_ids: Tensor, branch_ids: Tensor | None, dtype: torch.dtype, kwargs: dict[str, object]
    ) -> object:
        """The mask of packed rows in the form that this language model's attention takes; `two_part` takes a
        layout among the `kwargs` instead.
        """
        implementation = self.model.language_model.config._attn_implementation
        if implementation == TWO_PART and group_ids.shape[1] >= LONG_ROW:
            kwargs["pack_layout"] = layout_of(group_ids, branch_ids)
            return torch.empty(UNUSED_MASK, device=group_ids.device)
        return attention_mask_for(implementation, group_ids, branch_ids, dtype=dtype)

    def loss_at(self, hidden: Tensor, targets: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Cross-entropy summed over targets (N, 3) and divided by the targets of the global batch: (B, T, D)
        -> ().
        """
        total = summed_cross_entropy(self.lm_head, hidden[targets[:, 0], targets[:, 1]], targets[:, 2])
        return total / (len(targets) if num_items_in_batch is None else num_items_in_batch)

    def from_original_form(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        labels: Tensor | None = None,
        *,
        images: Images,
        image_sizes: Sequence | None = None,
        padding_side: str | None = None,
    ) -> tuple[Expanded, list[Tensor]]:
        """Ids with one -200 per picture (B, T) to one per patch, and the features that belong there.

        Rows are padded on the side that config.tokenizer_padding_side names, unless one is given.
        """
        chosen = choose_pictures(placeholders_per_row(input_ids, attention_mask), images)
        if len(chosen) < len(images):
            images = images[chosen] if isinstance(images, Tensor) else [images[place] for place in chosen]
            if image_sizes is not None:
                image_sizes = [image_sizes[place] for place in chosen]
        features = self.picture_features(images, image_sizes)
        expanded = expand(
            input_ids,
            attention_mask,
            labels,
            counts=[len(one) for one in features],
            padding_side=padding_side or self.config.tokenizer_padding_side,
        )
        return expanded, features

    def prepare_inputs_labels_for_multimodal(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        attention_mask: Tensor | None,
        past_key_values: object | None,
        labels: Tensor | None,
        images: Images | None,
        image_sizes: Sequence | None = None,
    ) -> tuple:
        """The original's method, which code that looks into a LLaVA calls.

        Returns (None, position_ids, attention_mask, past_key_values, embeddings (B, T, D), labels), with None
        for what was not given. A step of decoding, or a call without pictures, comes back as it is.
        """
        if images is None or input_ids.shape[1] == 1:
            return input_ids, position_ids, attention_mask, past_key_values, None, labels
        expanded, features = self.from_original_form(
            input_ids, attention_mask, labels, images=images, image_sizes=image_sizes
        )
        embeddings = self.fuse(expanded.input_ids, None, features or None)
        mask = expanded.attention_mask
        if position_ids is not None:
            position_ids = (mask.cumsum(dim=1) - 1) * mask
        kept = None if attention_mask is None else mask.to(attention_mask.dtype)
        return None, position_ids, kept, past_key_values, embeddings, expanded.labels

    @torch.no_grad()
    def generate(
        self,
        inputs: Tensor | None = None,
        images: Images | None = None,
        image_sizes: Sequence | None = None,
        **kwargs: object,
    ) -> object:
        """The original's form: `inputs` (B, T) with one -200 per picture; the result holds new ids only.

        With `input_ids=` or `inputs_embeds=` instead it is transformers' own `generate`, whose result begins
        with the prompt.
        """
        if inputs is None:
            return super().generate(**kwargs)
        mask: Any = kwargs.pop("attention_mask", None)
        kwargs.pop("position_ids", None)  # they follow from the mask
        # decoding goes on at the right end, so rows are aligned there
        expanded, features = self.from_original_form(
            inputs,
            mask,
            images=[] if images is None else images,
            image_sizes=image_sizes,
            padding_side="left",
        )
        embeddings = self.fuse(expanded.input_ids, None, features or None)
        return super().generate(inputs_embeds=embeddings, attention_mask=expanded.attention_mask, **kwargs)


def targets_of_labels(labels: Tensor) -> Tensor:
    """Labels (B, T) of plain causal rows to targets (N, 3): (row, position before the label, id)."""
    rows, positions = torch.nonzero(labels[:, 1:] != IGNORE_INDEX, as_tuple=True)
    return torch.stack([rows, positions, labels[rows, positions + 1]], dim=1)
