"""Write a LLaVA in the layout of the original: its names of tensors, its flat config.json, its tokenizer.

The vision tower is inside, as there, and lies in a folder beside the checkpoint too, because the original
reads it from where `mm_vision_tower` says.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PretrainedConfig, PreTrainedTokenizerFast

from llava.errors import UsageError
from llava.images import PREPROCESSOR_NAMES
from llava.model.builder import Opened
from llava.model.checkpoint import write_weights
from llava.model.config import LlavaConfig
from llava.model.key_names import INPUT_EMBEDDINGS, KeyTable, original_table
from llava.model.original import TOWER, VISION_TYPE
from llava.model.write_hf import part_values, special_values, write_json
from llava.tokenizer import CONFIG_NAME, SENTENCEPIECE_MODEL

logger = logging.getLogger(__name__)

MODEL_TYPES = {"llama": "llava_llama", "mistral": "llava_mistral"}
ARCHITECTURES = {"llama": "LlavaLlamaForCausalLM", "mistral": "LlavaMistralForCausalLM"}
TOWER_NAMES = KeyTable((("", "vision_model."),))
COPIED = (SENTENCEPIECE_MODEL, CONFIG_NAME, "special_tokens_map.json")
MODEL_KEYS = (
    "image_aspect_ratio",
    "mm_patch_merge_type",
    "mm_projector_type",
    "mm_use_im_patch_token",
    "mm_use_im_start_end",
    "mm_vision_select_feature",
    "mm_vision_select_layer",
    "tokenizer_model_max_length",
    "tokenizer_padding_side",
    "conv_template",
)


def model_type_of(config: LlavaConfig) -> str:
    """The original's model_type; `UsageError` for a language model or a vision tower that it has not."""
    text_type = config.text_config.model_type
    if text_type not in MODEL_TYPES:
        raise UsageError(
            f"the language model is a {text_type!r} model; the original has {', '.join(MODEL_TYPES)}. "
            "Use --to hf instead."
        )
    if config.vision_config.model_type != VISION_TYPE:
        raise UsageError(
            f"the vision tower is a {config.vision_config.model_type!r} model; the original has "
            f"{VISION_TYPE!r}."
        )
    return MODEL_TYPES[text_type]


def tower_folder_of(folder: Path) -> Path:
    """Where the vision tower of a written checkpoint lies: beside it."""
    return folder.with_name(f"{folder.name}-vision-tower")


def write_original(folder: Path, config: LlavaConfig, state: Mapping[str, Tensor], opened: Opened) -> None:
    """Write all files; `state` has our names and the types to store."""
    model_type = model_type_of(config)
    folder.mkdir(parents=True, exist_ok=True)
    write_weights(
        state, folder, tied=config.tie_word_embeddings, table=original_table(config.mm_projector_type)
    )
    write_tower(tower_folder_of(folder), config.vision_config, state, opened.image_processor)
    values = part_values(config.text_config) | config_values(config)
    values |= {
        "architectures": [ARCHITECTURES[config.text_config.model_type]],
        "model_type": model_type,
        "mm_vision_tower": tower_folder_of(folder).name,
        "torch_dtype": str(state[INPUT_EMBEDDINGS].dtype).removeprefix("torch."),
    }
    write_json(folder / "config.json", values)
    write_json(folder / "generation_config.json", special_values(config))
    write_tokenizer(folder, opened.tokenizer, opened.text_folder)


def config_values(config: LlavaConfig) -> dict[str, object]:
    """What the original's config.json says beyond the language model."""
    return {
        **{name: getattr(config, name) for name in MODEL_KEYS},
        "freeze_mm_mlp_adapter": False,
        **({"image_grid_pinpoints": config.image_grid_pinpoints} if config.image_grid_pinpoints else {}),
        **({"s2": True, "s2_scales": ",".join(map(str, config.scales))} if config.s2 else {}),
        "mm_hidden_size": config.vision_width,
        "tie_word_embeddings": config.tie_word_embeddings,
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        **special_values(config),
    }


def write_tower(
    folder: Path, config: PretrainedConfig, state: Mapping[str, Tensor], image_processor: Any
) -> None:
    """The vision tower as transformers' `CLIPVisionModel`, with the image processor."""
    tower = {key.removeprefix(TOWER): value for key, value in state.items() if key.startswith(TOWER)}
    write_weights(tower, folder, tied=False, table=TOWER_NAMES)
    dtypes = {str(value.dtype).removeprefix("torch.") for value in tower.values()}
    values = part_values(config) | {"architectures": ["CLIPVisionModel"]}
    write_json(folder / "config.json", values | ({"torch_dtype": dtypes.pop()} if len(dtypes) == 1 else {}))
    pictures = image_processor.to_dict() | {"image_processor_type": "CLIPImageProcessor"}
    write_json(folder / PREPROCESSOR_NAMES[0], pictures)


def write_tokenizer(folder: Path, tokenizer: PreTrainedTokenizerFast, text_folder: Path) -> None:
    """The SentencePiece model and its settings where they are known, else tokenizer.json."""
    if not (text_folder / SENTENCEPIECE_MODEL).is_file():
        tokenizer.save_pretrained(str(folder))
        logger.warning(
            "%s has no %s, which the original LLaVA needs: this package opens %s as it is; for the original, "
            "put the file of the base model there.",
            text_folder,
            SENTENCEPIECE_MODEL,
            folder,
        )
        return
    for name in COPIED:
        if (text_folder / name).is_file():
            shutil.copyfile(text_folder / name, folder / name)
    behind = sentencepiece_size(text_folder / SENTENCEPIECE_MODEL)
    added = {text: index for text, index in tokenizer.get_added_vocab().items() if index >= behind}
    if added:
        write_json(folder / "added_tokens.json", added)


def sentencepiece_size(file: Path) -> int:
    """The number of pieces of a SentencePiece model."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(file)).get_piece_size()
