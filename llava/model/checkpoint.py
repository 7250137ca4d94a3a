"""Our checkpoints: one folder that opens by its path alone. A full one holds the weights in llava-hf's key
layout; a LoRA
one holds the adapter (projector included, as PEFT's modules_to_save) and names its base by path and hash.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from llava.errors import UsageError
from llava.model.config import LlavaConfig
from llava.model.key_names import HEAD, OURS, KeyTable, differences, original_projector_key, projector_key
from llava.model.stored_tensors import TensorFile, Weights, as_weights, read_tensors
from llava.model.weight_files import PROJECTOR_NAME, weight_files, weights_hash
from llava.model_files import read_model_json

BASE_NAME = "base_model.json"
STORED_CONSTANTS = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Ends of names of buffers that older versions of transformers saved; they follow from the configuration."""
EMBEDDINGS = "model.embed_tokens.weight"
"""The original's name of the input embeddings, in a projector file too."""
PROGRESS_BYTES = 1 << 30
"""A model of at least this size shows how far its loading is."""


def rename(tensors: Mapping[str, Tensor], table: KeyTable, *, source: Path) -> Weights:
    """Tensors by their names in memory, without constants that older versions stored; `UsageError` names an
    unknown one.
    """
    names = {}
    for key in tensors:
        if key.endswith(STORED_CONSTANTS):
            continue
        try:
            names[key] = table.to_memory(key)
        except KeyError:
            raise UsageError(
                f"{source} holds an unknown tensor {key!r}; it is no checkpoint of this layout."
            ) from None
    return as_weights(tensors).renamed(names)


def read_files(folder: Path) -> Weights:
    """All tensors of a full checkpoint by their names on disk."""
    tensors = Weights({})
    for file in weight_files(folder):
        tensors |= TensorFile(file).weights()
    return tensors


def read_weights(folder: Path, table: KeyTable = OURS) -> Weights:
    """All tensors of a full checkpoint by their names in memory; `UsageError` on a name the layout does not
    know.
    """
    return rename(read_files(folder), table, source=folder)


def write_weights(state: Mapping[str, Tensor], folder: Path, *, tied: bool, table: KeyTable = OURS) -> None:
    """Write tensors in memory's names to a folder, in shards of 5 GB where needed; a tied head is left
    out.
    """
    from huggingface_hub import save_torch_state_dict

    kept = {table.to_disk(key): value for key, value in state.items() if not (tied and key == HEAD)}
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(kept, folder, max_shard_size="5GB", safe_serialization=True)


def load_strictly(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    tied: bool,
    source: Path,
    table: KeyTable = OURS,
    device: torch.device | None = None,
) -> None:
    """Put tensors into a model, one by one, each read once and cast to the model's type; a missing,
    unexpected or wrongly shaped one is a `UsageError` with its name on disk. Nothing stays at random.

    Weights without memory (on the meta device) get it on `device` (None = the CPU); others stay where they
    are. A tied head without memory is left for `tie_weights`.
    """

    def without_tied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in tensors.items() if not (tied and key == HEAD)}

    weights = as_weights(weights)
    places = without_tied(model.state_dict(keep_vars=True))
    problem = differences(
        {table.to_disk(key): form for key, form in without_tied(weights.forms()).items()},
        {table.to_disk(key): place for key, place in places.items()},
    )
    if problem:
        raise UsageError(
            f"the tensors in {source} do not fit the model its config.json describes: {problem}."
        )
    with torch.no_grad(), progress_bar(sum(place.nbytes for place in places.values())) as bar:
        for key, place in places.items():
            if place.is_meta:
                place = give_memory(model, key, device=device)
            for rows in weights.slices(key):
                place[rows].copy_(weights[key][rows])
                bar.update(place[rows].nbytes)


def give_memory(model: nn.Module, key: str, *, device: torch.device | None) -> nn.Parameter:
    """Replace a weight on the meta device by one on `device` (None = the CPU), whose numbers are not set."""
    owner, _, name = key.rpartition(".")
    module = model.get_submodule(owner)
    old = module.get_parameter(name)
    new = nn.Parameter(torch.empty_like(old, device=device or "cpu"), requires_grad=old.requires_grad)
    setattr(module, name, new)
    return new


def progress_bar(num_bytes: int) -> tqdm:
    """Shown on a terminal, by the first process, for `PROGRESS_BYTES` and more."""
    is_first = int(os.environ.get("RANK", "0")) == 0
    return tqdm(
        total=num_bytes,
        desc="Loading weights",
        unit="B",
        unit_scale=True,
        disable=None if is_first and num_bytes >= PROGRESS_BYTES else True,
    )


def write_config(config: LlavaConfig, folder: Path) -> None:
    """Write config.json, without the paths that it and its parts were loaded from."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config.to_dict() | {"architectures": ["LlavaForCausalLM"]}
    for part in (values, *(value for value in values.values() if isinstance(value, dict))):
        for private in ("_name_or_path", "_attn_implementation_autoset", "_attn_implementation"):
            part.pop(private, None)
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def write_base_reference(folder: Path, base: Path, *, seen_from: Path | None = None) -> None:
    """Name the base of an adapter: its path as given, its path seen from the adapter, and the hash of its
    weights. `seen_from`: where the adapter's folder will lie, if not where it is written.
    """
    reference = {
        "base_model_name_or_path": str(base),
        "relative_path": os.path.relpath(base, seen_from or folder),
        "sha256": weights_hash(base),
    }
    (folder / BASE_NAME).write_text(json.dumps(reference, indent=2) + "\n", encoding="utf-8")


def find_base(folder: Path, model_base: str | None) -> Path:
    """The folder of an adapter's base: the one given, the one recorded, or the one beside it; its hash must
    agree.

    Raises `UsageError` when none exists or the weights are others than those that the adapter was trained on.
    """
    file = folder / BASE_NAME
    if not file.is_file():
        raise UsageError(
            f"{folder} is an adapter without {BASE_NAME}; name its base model with --model-base."
        )
    reference = read_model_json(file)
    wanted = ("base_model_name_or_path", "relative_path", "sha256")
    missing = [name for name in wanted if not isinstance(reference.get(name), str)]
    if missing:
        raise UsageError(f"{file} lacks {', '.join(missing)} as texts; get the file again.")
    recorded = [reference["base_model_name_or_path"], str(folder / reference["relative_path"])]
    candidates = [model_base] if model_base else recorded
    for candidate in candidates:
        if Path(candidate, "config.json").is_file():
            break
    else:
        raise UsageError(
            f"the base model of {folder} was not found (looked at {', '.join(candidates)}); "
            "name it with --model-base."
        )
    found = weights_hash(Path(candidate))
    if found != reference["sha256"]:
        raise UsageError(
            f"{candidate} holds other weights (sha256 {found[:12]}...) than the base that {folder} was "
            f"trained on ({reference['sha256'][:12]}...); name the right base with --model-base."
        )
    return Path(candidate)


def write_projector(
    projector: Mapping[str, Tensor],
    folder: Path,
    name: str = PROJECTOR_NAME,
    *,
    embeddings: Tensor | None = None,
) -> None:
    """Write `mm_projector.bin` with the original LLaVA's names, so that every LLaVA code base reads it.

    `embeddings` (vocabulary, D): input embeddings that were trained beside it (start and end tokens).
    """
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        f"model.mm_projector.{original_projector_key(key)}": value.cpu() for key, value in projector.items()
    }
    if len(state) == 2:  # a linear projector is not numbered there
        state = {key.replace("mm_projector.0.", "mm_projector."): value for key, value in state.items()}
    if embeddings is not None:
        state[EMBEDDINGS] = embeddings.cpu()
    torch.save(state, folder / name)


def read_projector(file: Path) -> dict[str, Tensor]:
    """Tensors of a projector file (`.bin`, loaded without pickles, or `.safetensors`) by our names:
    `linear_1.weight`, ...
    """
    if not file.is_file():
        raise UsageError(
            f"the projector file {file} does not exist; --pretrain_mm_mlp_adapter names a mm_projector.bin."
        )
    state = read_tensors(file)
    found = {key.split("mm_projector.")[-1]: value for key, value in state.items() if "mm_projector." in key}
    if not found:
        raise UsageError(f"{file} holds no tensors named mm_projector.*, but {', '.join(list(state)[:5])}.")
    return {projector_key(key): value for key, value in found.items()}
