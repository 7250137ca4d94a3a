"""Write a LLaVA in the layout of the llava-hf checkpoints: transformers' `LlavaForConditionalGeneration`.

vLLM and the converters read this layout. The vocabulary grows by the token <image>, and the tokenizer and
the image processor of the written folder do by themselves what this package does with pictures and text.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from llava.chat_template import chat_template
from llava.constants import DEFAULT_IMAGE_TOKEN
from llava.conversation import TEMPLATES
from llava.errors import UsageError
from llava.images import PREPROCESSOR_NAMES
from llava.model.checkpoint import write_weights
from llava.model.config import LlavaConfig
from llava.model.hf_layout import MODEL_TYPE, SELECT_FEATURES, SPECIAL_IDS, VISION_TYPES
from llava.model.key_names import HEAD, INPUT_EMBEDDINGS
from llava.tokenizer import BOUNDARY, CONFIG_NAME, PLAIN_CLASS, TOKENIZER_JSON, has_first_boundary

STRATEGIES = {feature: strategy for strategy, feature in SELECT_FEATURES.items()}
ROW_MULTIPLE = 64
ARCHITECTURE = "LlavaForConditionalGeneration"
PROJECTOR = "mlp2x_gelu"
NOT_WRITTEN = (
    "_name_or_path",
    "_attn_implementation",
    "_attn_implementation_autoset",
    "transformers_version",
    "architectures",
    "chunk_size_feed_forward",
    "dtype",
    "id2label",
    "is_encoder_decoder",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "problem_type",
    "return_dict",
    "torch_dtype",
)
"""Traces of the machine that writes, and what every configuration of transformers says."""
LOADING_TRACES = ("backend", "is_local", "local_files_only")
"""What a tokenizer of transformers 5 notes about how it was opened."""
VOCABULARY_KEYS = (INPUT_EMBEDDINGS, HEAD)
LAST_OF_A_PICTURE = rf"{DEFAULT_IMAGE_TOKEN}(?!{DEFAULT_IMAGE_TOKEN}|\z)"
"""The last <image> of a row of them, where text follows."""
PICTURE_SETTINGS = (
    "crop_size",
    "do_center_crop",
    "do_convert_rgb",
    "do_normalize",
    "do_rescale",
    "do_resize",
    "image_mean",
    "image_std",
    "resample",
    "rescale_factor",
    "size",
)


def refuse_hf(config: LlavaConfig) -> None:
    """`UsageError` that names what this layout cannot express."""
    wanted = {
        "mm_projector_type": (PROJECTOR,),
        "mm_use_im_start_end": (False,),
        "image_aspect_ratio": ("pad", "square"),
        "mm_patch_merge_type": ("flat",),
        "s2": (False,),
    }
    for name, values in wanted.items():
        found = getattr(config, name)
        if found not in values:
            known = " or ".join(map(repr, values))
            raise UsageError(
                f"{name} is {found!r}; transformers' LLaVA has only {known}. Use --to llava instead."
            )
    if config.vision_config.model_type not in VISION_TYPES:
        raise UsageError(
            f"the vision tower is a {config.vision_config.model_type!r} model; this layout is written for "
            f"{', '.join(VISION_TYPES)}."
        )


def write_hf(
    folder: Path,
    config: LlavaConfig,
    state: Mapping[str, Tensor],
    tokenizer: PreTrainedTokenizerFast,
    image_processor: Any,
) -> None:
    """Write all files; `state` has our names and the types to store. Refuse first, see `refuse_hf`."""
    folder.mkdir(parents=True, exist_ok=True)
    image_token_id = write_processor(folder, config, tokenizer, image_processor)
    rows = -(-max(config.text_config.vocab_size, image_token_id + 1) // ROW_MULTIPLE) * ROW_MULTIPLE
    grown = {key: grow(value, rows) if key in VOCABULARY_KEYS else value for key, value in state.items()}
    write_weights(grown, folder, tied=config.tie_word_embeddings)
    dtype = str(state[VOCABULARY_KEYS[0]].dtype).removeprefix("torch.")
    values = hf_values(config, rows=rows, image_token_id=image_token_id, dtype=dtype)
    write_json(folder / "config.json", values)
    write_json(folder / "generation_config.json", special_values(config))


def write_json(file: Path, values: dict) -> None:
    """One JSON file, as people read it."""
    file.write_text(json.dumps(values, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def grow(weight: Tensor, rows: int) -> Tensor:
    """Rows added at the end of (V, D): the mean of all. In the head, their logit is the mean of the others,
    so that no greedy answer holds a token without a meaning.
    """
    if len(weight) == rows:
        return weight
    mean = weight.float().mean(dim=0, keepdim=True).to(weight.dtype)
    return torch.cat([weight, mean.expand(rows - len(weight), -1)])


def special_values(config: LlavaConfig) -> dict[str, object]:
    """The ids of special tokens that are known."""
    values = config.to_dict()
    return {name: values[name] for name in SPECIAL_IDS if values.get(name) is not None}


def part_values(config: PretrainedConfig) -> dict[str, Any]:
    """A sub-model's configuration; positions in the older words, which every version reads."""
    values = {key: value for key, value in config.to_dict().items() if key not in NOT_WRITTEN}
    rope = values.pop("rope_parameters", None)
    if rope:
        values |= {"rope_theta": rope["rope_theta"], "rope_scaling": rope_scaling(rope)}
    return values


def rope_scaling(rope: dict[str, Any]) -> dict[str, Any] | None:
    """Today's rope_parameters in the older words; transformers 4.37 takes exactly two, of two kinds."""
    kind = rope.get("rope_type", "default")
    if kind == "default":
        return None
    if kind in ("linear", "dynamic"):
        return {"type": kind, "factor": rope["factor"]}
    return {key: value for key, value in rope.items() if key != "rope_theta"} | {"type": kind}


def hf_values(config: LlavaConfig, *, rows: int, image_token_id: int, dtype: str) -> dict[str, object]:
    """config.json; the names beyond transformers' own are ours, and are read back by `read_hf`."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    text = part_values(config.text_config)
    text |= {
        "architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.text_config.model_type]],
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "vocab_size": rows,
    }
    return {
        "architectures": [ARCHITECTURE],
        "model_type": MODEL_TYPE,
        "image_seq_length": config.num_patches,
        "image_token_index": image_token_id,
        "multimodal_projector_bias": True,
        "projector_hidden_act": "gelu",
        "text_config": text,
        "tie_word_embeddings": config.tie_word_embeddings,
        "torch_dtype": dtype,
        "vision_config": part_values(config.vision_config),
        "vision_feature_layer": config.mm_vision_select_layer,
        "vision_feature_select_strategy": STRATEGIES[config.mm_vision_select_feature],
        "conv_template": config.conv_template,
        "tokenizer_model_max_length": config.tokenizer_model_max_length,
        **special_values(config),
    }


def write_processor(
    folder: Path, config: LlavaConfig, tokenizer: PreTrainedTokenizerFast, image_processor: Any
) -> int:
    """Write tokenizer, image processor and chat template, in the files of today and of before; returns the id
    of <image>.
    """
    from transformers import LlavaProcessor

    write_tokenizer(folder, tokenizer)
    with_image = PreTrainedTokenizerFast.from_pretrained(str(folder))
    processor = LlavaProcessor(
        image_processor=picture_processor(image_processor, pad=config.image_aspect_ratio == "pad"),
        tokenizer=with_image,
        patch_size=config.vision_config.patch_size,
        num_additional_image_tokens=1,
        vision_feature_select_strategy=STRATEGIES[config.mm_vision_select_feature],
        chat_template=chat_template(TEMPLATES[config.conv_template]),
    )
    processor.save_pretrained(str(folder))
    set_plain_class(folder)
    together = folder / PREPROCESSOR_NAMES[1]
    values = json.loads(together.read_text(encoding="utf-8"))
    pictures = values["image_processor"]
    pictures["image_processor_type"] = pictures["image_processor_type"].removesuffix("Pil")
    write_json(together, values)
    write_json(folder / PREPROCESSOR_NAMES[0], pictures | {"processor_class": "LlavaProcessor"})
    return with_image.convert_tokens_to_ids(DEFAULT_IMAGE_TOKEN)


def set_plain_class(folder: Path) -> None:
    """Name the tokenizer class that every version of transformers opens as the file describes it."""
    file = folder / CONFIG_NAME
    values = json.loads(file.read_text(encoding="utf-8")) | {"tokenizer_class": PLAIN_CLASS}
    write_json(file, {key: value for key, value in values.items() if key not in LOADING_TRACES})


def picture_processor(image_processor: Any, *, pad: bool) -> Any:
    """transformers' class that prepares pictures as `llava.images.process_image` does."""
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

    found = image_processor.to_dict()
    settings = {name: found[name] for name in PICTURE_SETTINGS if found.get(name) is not None}
    return LlavaImageProcessorPil(do_pad=True, **settings) if pad else CLIPImageProcessorPil(**settings)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    """Write a tokenizer that knows <image>, and gives our ids for a whole text with pictures.

    We tokenise what follows a picture on its own, so that it starts with a word boundary. Where the backend
    puts one only before the whole text, its normaliser learns to put one behind the last <image> too.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, normalizers

    tokenizer.save_pretrained(str(folder))
    set_plain_class(folder)
    if DEFAULT_IMAGE_TOKEN in tokenizer.get_vocab():
        return
    first_only = has_first_boundary(folder / TOKENIZER_JSON)
    if first_only:
        backend = Tokenizer.from_file(str(folder / TOKENIZER_JSON))
        boundary = normalizers.Replace(Regex(LAST_OF_A_PICTURE), f"{DEFAULT_IMAGE_TOKEN}{BOUNDARY}")
        backend.normalizer = normalizers.Sequence([backend.normalizer, boundary])  # pyright: ignore
        backend.save(str(folder / TOKENIZER_JSON))
    again = PreTrainedTokenizerFast.from_pretrained(str(folder))
    token = AddedToken(DEFAULT_IMAGE_TOKEN, special=True, normalized=first_only)
    again.add_tokens([token], special_tokens=True)
    again.save_pretrained(str(folder))
    set_plain_class(folder)
