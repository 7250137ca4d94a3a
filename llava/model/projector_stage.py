"""Our checkpoints of the projector stage: a projector, opened with the models that it was trained on."""

from pathlib import Path

import torch
from torch import Tensor

from llava.errors import UsageError
from llava.model.checkpoint import EMBEDDINGS, read_projector
from llava.model.config import LlavaConfig
from llava.model.contents import Contents, own_config
from llava.model.key_names import HEAD, INPUT_EMBEDDINGS, OURS, PROJECTOR
from llava.model.locations import find_folder
from llava.model.original import TOWER, base_weights
from llava.model.stored_tensors import read_tensors
from llava.model.vision_tower import load_vision_tower
from llava.model.weight_files import PROJECTOR_NAME, has_weights


def is_projector_stage(folder: Path) -> bool:
    """Whether a folder of our layout holds a projector alone."""
    return (folder / PROJECTOR_NAME).is_file() and not has_weights(folder)


def read_our_projector(folder: Path, model_base: str | None) -> Contents:
    """The projector on the language model (or LLaVA) that `model_base` names.

    The vision tower is that model's, or the one that config.json names.
    """
    if not model_base:
        raise UsageError(
            f"{folder} holds only a projector ({PROJECTOR_NAME}); name its language model with --model-base, "
            "or train with it by --pretrain_mm_mlp_adapter."
        )
    config = own_config(folder)
    weights = base_weights(find_folder(model_base, beside=folder))
    if not any(key.startswith(TOWER) for key in weights):
        weights |= tower_weights(folder, config)
    weights |= {PROJECTOR + key: value for key, value in read_projector(folder / PROJECTOR_NAME).items()}
    embeddings = read_tensors(folder / PROJECTOR_NAME).get(EMBEDDINGS)
    if embeddings is not None:  # trained beside the projector, with rows for the tokens around pictures
        weights |= {INPUT_EMBEDDINGS: embeddings}
        if HEAD in weights:
            weights |= {HEAD: with_mean_rows(weights[HEAD], len(embeddings))}
    return Contents(folder, config, weights, OURS, folder, folder)


def tower_weights(folder: Path, config: LlavaConfig) -> dict[str, Tensor]:
    """The named vision tower by our names."""
    if not config.mm_vision_tower:
        raise UsageError(
            f"{folder}: mm_vision_tower in config.json names no vision tower, and the base has none."
        )
    named = load_vision_tower(find_folder(config.mm_vision_tower, beside=folder), dtype="auto")
    return {f"{TOWER}{key}": value for key, value in named.state_dict().items()}


def with_mean_rows(weight: Tensor, rows: int) -> Tensor:
    """(V, D) in float32 with new rows at the end, each the mean of the old ones, as training adds them."""
    weight = weight.float()
    return torch.cat([weight, weight.mean(dim=0).expand(max(rows - len(weight), 0), -1)])
