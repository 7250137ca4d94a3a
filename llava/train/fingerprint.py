"""What decides the result of a run: a checkpoint is only gone on from by a run that agrees in all of it.

Where things lie, how often is logged or saved, loaders, compilation and caches are not in it. Paths are not
either: data, pictures and models are known by their content.
"""

import enum
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from llava.conversation import training_template
from llava.model.builder import is_llava
from llava.model.locations import find_folder
from llava.model.weight_files import is_hash, weights_hash
from llava.picture_checks import FULL_CHECK_LIMIT
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments
from llava.train.manifest import Facts
from llava.train.memory import processes_here
from llava.train.sample_index import Sample, SampleIndex
from llava.train.summary import planned_steps, samples_per_step
from llava.train.vision_files import content_hash

logger = logging.getLogger(__name__)

PACKAGES = ("torch", "transformers", "accelerate", "peft", "deepspeed", "tokenizers", "llava")
TRAINING_FLAGS = (
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "average_tokens_across_devices",
    "bf16",
    "data_seed",
    "early_stopping_patience",
    "eval_split",
    "fp16",
    "freeze_mm_mlp_adapter",
    "group_by_length",
    "group_by_modality_length",
    "label_smoothing_factor",
    "learning_rate",
    "lora_enable",
    "lr_scheduler_kwargs",
    "lr_scheduler_type",
    "max_branches",
    "max_grad_norm",
    "mm_projector_lr",
    "model_max_length",
    "neftune_noise_alpha",
    "on_nonfinite",
    "optim",
    "optim_args",
    "optim_target_modules",
    "pack_tokens",
    "packing",
    "seed",
    "tf32",
    "warmup_steps",
    "weight_decay",
)
LORA_FLAGS = ("lora_r", "lora_alpha", "lora_dropout", "lora_bias")
MODEL_FLAGS = (
    "freeze_backbone",
    "freeze_vision_tower",
    "mm_use_im_patch_token",
    "mm_use_im_start_end",
    "tune_mm_mlp_adapter",
)
ASSEMBLY_FLAGS = ("mm_projector_type", "mm_vision_select_feature", "mm_vision_select_layer")
"""Of effect only where a language model and a vision tower are put together."""
CONSTANT_SCHEDULES = ("constant", "constant_with_warmup")
"""With these a run may be made longer; with the others every rate depends on the number of steps."""
MODEL_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "*processor*.json",
)
SHOWN_DIGITS = 12


def facts_of(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
    samples: Sequence[Sample],
) -> Facts:
    """What a run's checkpoints carry. Reads the model's files and the pictures once; call it on one rank."""
    index = SampleIndex.of(samples)
    fingerprint = {
        **picked(training_args, TRAINING_FLAGS),
        **(picked(training_args, LORA_FLAGS) if training_args.lora_enable else {}),
        **picked(model_args, MODEL_FLAGS),
        **model_facts(model_args, training_args),
        **order_facts(training_args, len(samples)),
        "template": training_template(model_args.version).name,
        "image_aspect_ratio": data_args.image_aspect_ratio,
        "data": hash_of_texts(index),
        "pictures": hash_of_pictures(index),
    }
    return Facts(
        fingerprint={name: as_json(value) for name, value in sorted(fingerprint.items())},
        seed=training_args.seed,
        world_size=training_args.world_size,
        deepspeed=bool(training_args.deepspeed),
        versions=versions(),
    )


def ranks_of(args: TrainingArguments) -> tuple[int, ...]:
    """Ranks whose files lie in this file system's checkpoints: all, or those of this machine."""
    if not args.save_on_each_node:
        return tuple(range(args.world_size))
    first = args.process_index - args.local_process_index
    return tuple(range(first, first + processes_here()))


def picked(arguments: object, names: Sequence[str]) -> dict[str, object]:
    """Flags by name."""
    return {name: getattr(arguments, name) for name in names}


def as_json(value: object) -> object:
    """A value as it comes back from JSON; enumerations by their value."""
    plain = value.value if isinstance(value, enum.Enum) else value
    return json.loads(json.dumps(plain, default=str))


def order_facts(args: TrainingArguments, num_samples: int) -> dict[str, object]:
    """Which samples a step takes, and how many steps shape the schedule."""
    by_length = args.packing == "none" and (args.group_by_modality_length or args.group_by_length)
    constant = as_json(args.lr_scheduler_type) in CONSTANT_SCHEDULES
    return {
        "samples per step": samples_per_step(args),
        "samples per device, of which lengths are grouped": args.train_batch_size if by_length else None,
        "steps of the schedule": None if constant else planned_steps(args, num_samples),
        "deepspeed": engine_facts(args),
    }


def engine_facts(args: TrainingArguments) -> str | None:
    """DeepSpeed's stage and ranks: its files fit no other."""
    if not args.deepspeed:
        return None
    settings: Any = args.hf_deepspeed_config
    return f"stage {settings.get_value('zero_optimization.stage', 0)}, {args.world_size} ranks"


def model_facts(model_args: ModelArguments, args: TrainingArguments) -> dict[str, object]:
    """The starting model by its files."""
    folder = find_folder(model_args.model_name_or_path, cache=args.cache_dir)
    found: dict[str, object] = {"base model": hash_of_model(folder)}
    if not is_llava(folder):
        found |= picked(model_args, ASSEMBLY_FLAGS)
        if model_args.vision_tower:
            tower = find_folder(model_args.vision_tower, cache=args.cache_dir)
            found["vision tower"] = hash_of_model(tower)
    projector = model_args.pretrain_mm_mlp_adapter
    if projector and Path(projector).is_file():
        found["pretrained projector"] = content_hash(Path(projector))
    return found


def hash_of_model(folder: Path) -> str:
    """Weights, configuration, tokenizer and processor of a model folder."""
    digest = hashlib.sha256(weights_hash(folder).encode())
    for file in sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern)}):
        digest.update(f"\n{file.name} {content_hash(file)}".encode())
    return digest.hexdigest()


def hash_of_texts(index: SampleIndex) -> str:
    """All turns of all samples in order, and which pictures each sample has; ids do not count."""
    digest = hashlib.sha256()
    for name in ("texts", "turn_ends", "row_turns", "row_pictures", "pictures"):
        values = np.ascontiguousarray(index.arrays[name])
        digest.update(f"{name} {values.dtype} {values.shape}\n".encode())
        digest.update(values.view(np.uint8).data)
    return digest.hexdigest()


def hash_of_pictures(index: SampleIndex) -> str:
    """All pictures in the order of first appearance: up to 20,000 (which are decoded at the start anyway) by
    their bytes, more by their sizes.
    """
    paths = [index.picture_path(number) for number in range(len(index.picture_rows))]
    by_size = len(paths) > FULL_CHECK_LIMIT
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(size_of if by_size else content_hash, paths)
        return hashlib.sha256("\n".join([str(len(paths)), *found]).encode()).hexdigest()


def size_of(path: str) -> str:
    """Bytes of a file."""
    return str(Path(path).stat().st_size)


def versions() -> dict[str, str]:
    """Versions of the packages that compute."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def differences(then: Mapping[str, object], now: Mapping[str, object]) -> list[str]:
    """`name: THEN then, NOW now` for everything that differs; a name that only one side has is none there."""
    names = sorted({*then, *now})
    return [
        f"{name}: {shown(then.get(name))} then, {shown(now.get(name))} now"
        for name in names
        if then.get(name) != now.get(name)
    ]


def shown(value: object) -> str:
    """A value for a message; a hash by its first digits."""
    text = str(value)
    return text[:SHOWN_DIGITS] if is_hash(text) else "none" if value is None else text
