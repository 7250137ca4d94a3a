"""A training with everything that ends it in order: signals, a step without an end, errors that say where
they were.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from llava.errors import UsageError
from llava.train.loader_notes import LoaderNotes
from llava.train.step_progress import HangWatch, StepProgress
from llava.train.stop_signals import StoppedBySignal, StopSignals, say
from llava.train.trainer import LlavaTrainer

logger = logging.getLogger(__name__)

MEMORY_REMEDY = (
    "what helps against memory that is full: --gradient_checkpointing True, a smaller "
    "--per_device_train_batch_size with more --gradient_accumulation_steps, --lora_enable True, or ZeRO-3 "
    "(docs/operations.md)"
)


def train_guarded(trainer: LlavaTrainer, signals: StopSignals, resume_from: Path | None) -> None:
    """`trainer.train`; `StoppedBySignal` after a signal, with a checkpoint of the last step."""
    trainer.guard.signals = signals
    watch = HangWatch(trainer.progress, trainer.args.ddp_timeout, signals)
    with named_failures(trainer.progress, trainer.notes), watch:
        try:
            trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
        except StoppedBySignal as stopped:
            trainer.callback_handler.on_train_end(trainer.args, trainer.state, trainer.control)  # trackers
            if trainer.args.process_index == 0:
                say(
                    f"Stopped by {stopped.name} after step {trainer.state.global_step} of "
                    f"{trainer.state.max_steps}; the checkpoint is in {trainer.args.output_dir}. "
                    "The same command goes on from there."
                )
            raise


@contextmanager
def named_failures(progress: StepProgress, notes: LoaderNotes) -> Iterator[None]:
    """Errors say which rank and step they come from, with which rows, also in torchrun's summary."""
    try:
        yield
    except UsageError as error:
        message = str(error).rpartition(f"{type(error).__name__}: ")[2]  # without a loader's traceback
        remarks = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
        error.args = (f"{message.rstrip()}{remarks} [{progress}]",)
        record(error)
        raise
    except Exception as error:
        for remark in (f"This was {progress}.", notes.about(error), remedy(error)):
            if remark:
                error.add_note(remark)
        record(error)
        raise


def remedy(error: Exception) -> str:
    """What to do where memory ran out."""
    is_memory = isinstance(error, MemoryError | torch.OutOfMemoryError)
    is_killed = any("killed by signal: Killed" in str(one) for one in (error, error.__cause__))
    return MEMORY_REMEDY if is_memory or is_killed else ""


def record(error: Exception) -> None:
    """Where torchrun looks for the first failure; nothing without it."""
    if torch.distributed.is_available():
        from torch.distributed.elastic.multiprocessing.errors import get_error_handler

        get_error_handler().record_exception(error)
