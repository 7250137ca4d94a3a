"""Room on the disk: what a run's checkpoints will take, told before the first step, and what a failed save
says.
"""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from llava.errors import UsageError
from llava.train.checkpoint_files import checkpoint_folders, free_bytes
from llava.train.manifest import DamagedError, read_manifest
from llava.train.memory import optimizer_bytes
from llava.train.summary import number_of

logger = logging.getLogger(__name__)

SMALL_FILES = 1 << 20
"""Room for configuration, tokenizer, random states and the log, without the tokenizer's own size."""
FULL_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)
FULL_DISK_WORDS = (
    "no space left",
    "file too large",
    "quota exceeded",
    "inline_container",
    "pytorchstreamwriter",
)
"""How torch and safetensors tell of a full disk, in messages only."""


class SavingError(UsageError):
    """A checkpoint could not be saved; the message says what is left to go on from."""


@dataclass(frozen=True)
class SaveSize:
    """Bytes of one checkpoint, and of the result."""

    checkpoint: int
    result: int


def estimate_saves(
    model: nn.Module, *, kind: str, optimizer: str, engine: bool, only_model: bool
) -> SaveSize:
    """What saving a (PEFT-wrapped) model takes.

    `kind` is that of the writer; with `engine`, DeepSpeed keeps its weights once more and an fp32 copy beside
    the optimiser's states; with `only_model` there is no optimiser in a checkpoint.
    """
    weights = list(model.parameters())
    trained = [weight for weight in weights if weight.requires_grad]
    numbers = sum(map(number_of, trained))
    trained_bytes = sum(number_of(weight) * weight.element_size() for weight in trained)
    whole = sum(number_of(weight) * weight.element_size() for weight in weights)
    result = (whole if kind == "full" else trained_bytes) + SMALL_FILES
    states = (
        12 * numbers + (trained_bytes if kind == "lora" else whole)
        if engine
        else optimizer_bytes(optimizer, numbers, trained_bytes)
    )
    return SaveSize(result + (0 if only_model else states), result)


def check_room(output_dir: Path, size: SaveSize, *, saves: int, limit: int | None) -> None:
    """Before the first step: `UsageError` when the next save cannot fit, a warning when a later one will not.

    `saves`: checkpoints to come; `limit`: how many are kept, None for all.
    """
    free = free_bytes(output_dir)
    first = size.checkpoint if saves else size.result
    if free < first:
        raise UsageError(
            f"--output_dir {output_dir} has {in_words(free)} free, and a save takes about {in_words(first)}; "
            "free disk space or name a folder on a larger disk."
        )
    kept = saves if not limit or limit < 0 else min(saves, limit + 1)
    there = sum(size_of(folder) for folder in checkpoint_folders(output_dir)) if limit else 0
    most = kept * size.checkpoint + size.result
    if free + there < most:
        logger.warning(
            "--output_dir %s has %s free, and the run's checkpoints take up to %s (%d at a time, and the "
            "result): the disk will be full before the end. Free space, or lower --save_total_limit.",
            output_dir,
            in_words(free),
            in_words(most),
            kept,
        )


def size_of(folder: Path) -> int:
    """Bytes of a checkpoint, by its manifest; 0 without one."""
    try:
        return read_manifest(folder).num_bytes()
    except DamagedError:
        return 0


def is_full_disk(error: object) -> bool:
    """Whether an error, or its text from another rank, tells of a full disk or a limit on files."""
    if isinstance(error, OSError) and error.errno in FULL_DISK:
        return True
    return any(word in str(error).lower() for word in FULL_DISK_WORDS)


def is_system_error(error: object) -> bool:
    """Whether it is the system that refused, and no mistake of a program."""
    return (
        isinstance(error, OSError) or is_full_disk(error) or "os error" in str(error) or "Errno" in str(error)
    )


def failed_save_message(
    name: str, output_dir: Path, errors: Sequence[object], *, needed: int, free: int
) -> str:
    """What a user reads when `name` could not be saved."""
    reason = str(errors[0]).strip().splitlines()[0]
    good = last_good(output_dir)
    left = f"{good.name} is whole" if good else "there is no earlier checkpoint"
    goes_on = "it goes on from there" if good else "it starts anew"
    room = f"It takes about {in_words(needed)}, {in_words(free)} are free"
    full = any(map(is_full_disk, errors))
    remedy = "Free disk space (or lift a limit on the size of files)" if full else "Mend that"
    return (
        f"{name} could not be saved in {output_dir}: {reason}. {room}; {left}. {remedy}, then run the same "
        f"command again: {goes_on}."
    )


def last_good(output_dir: Path) -> Path | None:
    """The newest checkpoint with a manifest."""
    return next((folder for folder in checkpoint_folders(output_dir) if size_of(folder)), None)


def in_words(num_bytes: int) -> str:
    """Bytes in MB or GB, and exactly."""
    size = f"{num_bytes / 1e9:,.1f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:,.1f} MB"
    return f"{size} ({num_bytes:,} bytes)"
