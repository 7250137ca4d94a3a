"""Our checkpoints: one folder that opens by its path alone. A full one holds the weights in llava-hf's key
layout; a LoRA
one holds the adapter (projector included, as PEFT's modules_to_save) and names its base by path and hash.
"""

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from llava.errors import UsageError
from llava.model.config import LlavaConfig
from llava.model.key_names import OURS, KeyTable, differences, original_projector_key, projector_key

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
ADAPTER_CONFIG_NAME = "adapter_config.json"
ADAPTER_WEIGHTS_NAME = "adapter_model.safetensors"
PROJECTOR_NAME = "mm_projector.bin"
BASE_NAME = "base_model.json"
NON_LORA_NAME = "non_lora_trainables.bin"
WEIGHT_FILES = (
    (WEIGHTS_NAME, INDEX_NAME),
    ("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Names of a whole model's weights and of the index over their shards, in the order they are looked for."""
SMALL_WEIGHTS = (ADAPTER_WEIGHTS_NAME, "adapter_model.bin", NON_LORA_NAME, PROJECTOR_NAME)
STORED_CONSTANTS = ("rotary_emb.inv_freq", "embeddings.position_ids")
"""Ends of names of buffers that older versions of transformers saved; they follow from the configuration."""
EMBEDDINGS = "model.embed_tokens.weight"
"""The original's name of the input embeddings, in a projector file too."""
HASH_CHUNK = 1 << 22


def weight_files(folder: Path) -> list[Path]:
    """The weight files of a folder, safetensors before `.bin`, one or the shards that an index names.

    Raises `UsageError` when there are none, or when a shard is missing.
    """
    for whole, index in WEIGHT_FILES:
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            shards = json.loads((folder / index).read_text(encoding="utf-8"))["weight_map"].values()
            files = [folder / name for name in sorted(set(shards))]
            missing = [file.name for file in files if not file.is_file()]
            if missing:
                raise UsageError(f"{folder / index} names files that are not there: {', '.join(missing)}.")
            return files
    names = ", ".join(name for pair in WEIGHT_FILES for name in pair)
    raise UsageError(f"{folder} holds no weights (none of {names}); is it a checkpoint folder?")


def has_weights(folder: Path) -> bool:
    """Whether a folder holds the weights of a whole model."""
    return any((folder / name).is_file() for pair in WEIGHT_FILES for name in pair)


def read_tensors(file: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors or `.bin` file, on the CPU; no pickled code is run."""
    if not file.is_file():
        raise UsageError(f"{file.parent} has no {file.name}; the checkpoint is not complete.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        return torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first_line = str(error).partition("\n")[0]
        raise UsageError(f"{file} holds no tensors that can be read safely: {first_line}") from None


def rename(tensors: Mapping[str, Tensor], table: KeyTable, *, source: Path) -> dict[str, Tensor]:
    """Tensors by their names in memory, without constants that older versions stored; `UsageError` names an
    unknown one.
    """
    renamed = {}
    for key, tensor in tensors.items():
        if key.endswith(STORED_CONSTANTS):
            continue
        try:
            renamed[table.to_memory(key)] = tensor
        except KeyError:
            raise UsageError(
                f"{source} holds an unknown tensor {key!r}; it is no checkpoint of this layout."
            ) from None
    return renamed


def read_files(folder: Path) -> dict[str, Tensor]:
    """All tensors of a full checkpoint by their names on disk."""
    tensors = {}
    for file in weight_files(folder):
        tensors |= read_tensors(file)
    return tensors


def read_weights(folder: Path, table: KeyTable = OURS) -> dict[str, Tensor]:
    """All tensors of a full checkpoint by their names in memory; `UsageError` on a name the layout does not
    know.
    """
    return rename(read_files(folder), table, source=folder)


def write_weights(state: Mapping[str, Tensor], folder: Path, *, tied: bool, table: KeyTable = OURS) -> None:
    """Write tensors in memory's names to a folder, in shards of 5 GB where needed; a tied head is left
    out.
    """
    from huggingface_hub import save_torch_state_dict

    kept = {
        table.to_disk(key): value for key, value in state.items() if not (tied and key == "lm_head.weight")
    }
    folder.mkdir(parents=True, exist_ok=True)
    save_torch_state_dict(kept, folder, max_shard_size="5GB", safe_serialization=True)


def load_strictly(
    model: nn.Module, weights: dict[str, Tensor], *, tied: bool, source: Path, table: KeyTable = OURS
) -> None:
    """Copy tensors into a model; a missing, unexpected or wrongly shaped one is a `UsageError` with its name
    on disk. Nothing stays at random.
    """

    def without_tied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key: value for key, value in tensors.items() if not (tied and key == "lm_head.weight")}

    weights, wanted = without_tied(weights), without_tied(model.state_dict())
    problem = differences(
        {table.to_disk(key): value for key, value in weights.items()},
        {table.to_disk(key): value for key, value in wanted.items()},
    )
    if problem:
        raise UsageError(
            f"the tensors in {source} do not fit the model its config.json describes: {problem}."
        )
    model.load_state_dict(weights, strict=not tied)


def write_config(config: LlavaConfig, folder: Path) -> None:
    """Write config.json, without the paths that it and its parts were loaded from."""
    folder.mkdir(parents=True, exist_ok=True)
    values = config.to_dict() | {"architectures": ["LlavaForCausalLM"]}
    for part in (values, *(value for value in values.values() if isinstance(value, dict))):
        for private in ("_name_or_path", "_attn_implementation_autoset", "_attn_implementation"):
            part.pop(private, None)
    (folder / "config.json").write_text(json.dumps(values, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def weights_hash(folder: Path) -> str:
    """SHA-256 over the weight files of a checkpoint (full, adapter or projector), in a fixed order."""
    small = [folder / name for name in SMALL_WEIGHTS if (folder / name).is_file()]
    files = weight_files(folder) if has_weights(folder) or not small else small
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(HASH_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def write_base_reference(folder: Path, base: Path) -> None:
    """Name the base of an adapter: its path as given, its path seen from the adapter, and the hash of its
    weights.
    """
    reference = {
        "base_model_name_or_path": str(base),
        "relative_path": os.path.relpath(base, folder),
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
    reference = json.loads(file.read_text(encoding="utf-8"))
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
