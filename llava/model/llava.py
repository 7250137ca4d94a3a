"""LLaVA: a vision tower, a projector and a language model, composed; pictures become tokens among the words.

The attribute names are those of transformers' LlavaForConditionalGeneration, so that a LoRA adapter trained
here loads there.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AutoModel, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import ModelOutput

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.attention import attention_mask_for
from llava.model.config import LlavaConfig
from llava.model.fusion import embed_text, expand_placeholders, write_features
from llava.model.projector import MultiModalProjector
from llava.model.vision_tower import encode_pictures


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
        self.multi_modal_projector = MultiModalProjector(
            config.mm_projector_type, config.vision_config.hidden_size, config.text_config.hidden_size
        )
        self.language_model = AutoModel.from_config(config.text_config)


class LlavaForCausalLM(PreTrainedModel, GenerationMixin):
    """CLIP tower + projector + any causal language model of transformers."""

    config_class = LlavaConfig
    base_model_prefix = "model"
    main_input_name = "input_ids"
    input_modalities: ClassVar = ["image", "text"]
    accepts_loss_kwargs = True
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
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
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
        self.lm_head = value

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """Pictures to features ready for the language model: (I, 3, H, W) -> (I, P, D)."""
        features = encode_pictures(
            self.model.vision_tower,
            pixel_values,
            layer=self.config.mm_vision_select_layer,
            feature=self.config.mm_vision_select_feature,
        )
        weight = next(self.model.multi_modal_projector.parameters(), None)
        return self.model.multi_modal_projector(features if weight is None else features.to(weight.dtype))

    def fuse(self, input_ids: Tensor, pixel_values: Tensor | None, image_features: Tensor | None) -> Tensor:
        """Embeddings (B, T, D) of ids whose pictures stand as one placeholder per patch.

        A training batch without a picture still runs tower and projector on a black one, multiplied by zero:
        every
        rank then builds the same graph (ZeRO-3 hangs otherwise), and the projector's gradient is zero, not
        missing.
        """
        embeddings = embed_text(self.get_input_embeddings(), input_ids)
        if image_features is None and pixel_values is not None:
            image_features = self.encode_images(pixel_values)
        if image_features is not None:
            return write_features(embeddings, input_ids, image_features)
        if bool((input_ids == IMAGE_TOKEN_INDEX).any()):
            raise ValueError(
                "the token ids hold image placeholders, but no pictures were given (pixel_values)."
            )
        if self.training and torch.is_grad_enabled():
            size = self.config.vision_config.image_size
            nothing = self.encode_images(torch.zeros(1, 3, size, size, device=input_ids.device))
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
        image_features: Tensor | None = None,
        group_ids: Tensor | None = None,
        branch_ids: Tensor | None = None,
        targets: Tensor | None = None,
        images: Tensor | list[Tensor] | None = None,
        image_sizes: object | None = None,
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
            image_features: (I, P, D) from `encode_images`, instead of pixel_values.
            group_ids, branch_ids: (B, T), see `llava.model.attention`; -1 in group_ids is padding.
            targets: (N, 3) rows of (row, position that predicts, id); logits are computed there only.
            images: (I, 3, H, W) or a list of (3, H, W): pictures in the original calling form.
            logits_to_keep: logits of the last so many positions only; 0 = all.
        """
        if (
            images is not None
            and input_ids is not None
            and (past_key_values is None or input_ids.shape[1] > 1)
        ):
            input_ids, attention_mask, labels = self._expand_original_form(input_ids, attention_mask, labels)
            pixel_values = images if isinstance(images, Tensor) else torch.stack(list(images))
        if inputs_embeds is None:
            inputs_embeds = self.fuse(input_ids, pixel_values, image_features)
        if group_ids is not None:
            attention_mask = attention_mask_for(
                self.model.language_model.config._attn_implementation,
                group_ids,
                branch_ids,
                dtype=inputs_embeds.dtype,
            )
        kwargs.pop("return_dict", None)  # PEFT passes it
        outputs = self.model.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=False if targets is not None or labels is not None else use_cache,
            return_dict=True,
            **kwargs,
        )
        hidden = outputs.last_hidden_state
        if targets is None and labels is not None:
            targets = targets_of_labels(labels)
        if targets is not None and labels is None:
            return LlavaOutput(loss=self.loss_at(hidden, targets, num_items_in_batch))
        logits = self.lm_head(hidden[:, -logits_to_keep:] if logits_to_keep else hidden)
        return LlavaOutput(
            loss=None if targets is None else self.loss_at(hidden, targets, num_items_in_batch),
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def loss_at(self, hidden: Tensor, targets: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        """Cross-entropy summed over targets (N, 3) and divided by the targets of the global batch: (B, T, D)
        -> ().
        """
        logits = self.lm_head(hidden[targets[:, 0], targets[:, 1]]).float()
        total = functional.cross_entropy(logits, targets[:, 2], reduction="sum")
        return total / (len(targets) if num_items_in_batch is None else num_items_in_batch)

    def _expand_original_form(
        self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Ids, mask and labels with one position per patch instead of one per picture."""
        num_patches = self.config.num_patches
        expanded, mask = expand_placeholders(input_ids, attention_mask, num_patches=num_patches)
        if labels is None:
            return expanded, mask, None
        kept = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        new_labels = torch.full_like(expanded, IGNORE_INDEX)
        for row, (ids, row_labels, row_kept) in enumerate(zip(input_ids, labels, kept.bool(), strict=True)):
            repeats = torch.where(ids[row_kept] == IMAGE_TOKEN_INDEX, num_patches, 1)
            values = row_labels[row_kept].repeat_interleave(repeats)
            new_labels[row, : len(values)] = values
        return expanded, mask, new_labels

    @torch.no_grad()
    def generate(
        self, inputs: Tensor | None = None, images: Tensor | None = None, **kwargs: object
    ) -> object:
        """`GenerationMixin.generate`; with `images` in the original form (one -200 per picture) it returns
        new ids only.
        """
        kwargs.pop("image_sizes", None)
        if images is None:
            return super().generate(inputs, **kwargs)
        ids, mask = expand_placeholders(
            inputs, kwargs.pop("attention_mask", None), num_patches=self.config.num_patches
        )
        if bool((mask == 0).any()):  # decoding goes on at the right end, so rows are aligned there
            ids, mask = align_right(ids, mask)
        pictures = images if isinstance(images, Tensor) else torch.stack(list(images))
        embeddings = self.fuse(ids, pictures, None)
        return super().generate(inputs_embeds=embeddings, attention_mask=mask, **kwargs)


def targets_of_labels(labels: Tensor) -> Tensor:
    """Labels (B, T) of plain causal rows to targets (N, 3): (row, position before the label, id)."""
    rows, positions = torch.nonzero(labels[:, 1:] != IGNORE_INDEX, as_tuple=True)
    return torch.stack([rows, positions, labels[rows, positions + 1]], dim=1)


def align_right(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Move right padding to the left: (B, T), (B, T) -> the same shapes."""
    order = mask.argsort(dim=1, stable=True)
    return ids.gather(1, order), mask.gather(1, order)
