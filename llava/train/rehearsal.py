"""Saving, tried before the first step, so that a run of ten hours cannot fail at its end.

An adapter or a projector is written and read back. Of a full model, which is large, configuration, tokenizer
and processor are written, and the names, types and sharing of its weights are checked.
"""

import logging
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from llava.errors import UsageError
from llava.model.checkpoint import read_projector
from llava.model.key_names import HEAD, OURS
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import ADAPTER_WEIGHTS_NAME, PROJECTOR_NAME
from llava.train.checkpoint_files import SAVING
from llava.train.disk_room import check_room, estimate_saves, in_words
from llava.train.saving import CheckpointWriter
from llava.train.summary import planned_steps, saves_of
from llava.train.trainer import LlavaTrainer

logger = logging.getLogger(__name__)

SHOWN = 5


def prepare_saving(trainer: LlavaTrainer) -> None:
    """Before the first step: room on the disk, and a rehearsal of the end. On one rank; `UsageError`."""
    args, store = trainer.args, trainer.store
    size = store.size = estimate_saves(
        trainer.model,
        kind=trainer.writer.kind,
        optimizer=str(args.optim),
        engine=bool(args.deepspeed),
        only_model=args.save_only_model,
    )
    logger.info(
        "A checkpoint takes about %s, the result %s.", in_words(size.checkpoint), in_words(size.result)
    )
    saves = saves_of(args, planned_steps(args, trainer.sampler.num_samples))
    check_room(store.output_dir, size, saves=saves, limit=args.save_total_limit)
    rehearse_saving(trainer.writer, trainer.model, store.output_dir)


def rehearse_saving(writer: CheckpointWriter, model: nn.Module, output_dir: Path) -> None:
    """Write what the end will write, as said above, and remove it again.

    `model` (PEFT-wrapped) must be whole here: before DeepSpeed cuts it up, on one rank. `UsageError` says
    what would go wrong.
    """
    folder = output_dir / SAVING / "rehearsal"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        if writer.kind == "full":
            folder.mkdir(parents=True)
            writer.write_surroundings(model, folder)
            problems = problems_of_weights(model.state_dict(), tied=_config_of(model).tie_word_embeddings)
        else:
            writer.write(model, folder)
            problems = problems_of_files(writer, model, folder)
    except (OSError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"the result could not be saved in {output_dir}: {error}") from error
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)
    if problems:
        more = len(problems) - SHOWN
        shown = "; ".join(problems[:SHOWN]) + (f"; and {more} more" if more > 0 else "")
        raise UsageError(f"the result of this run could not be opened again: {shown}.")


def _config_of(model: Any) -> Any:
    return model.config


def problems_of_files(writer: CheckpointWriter, model: Any, folder: Path) -> list[str]:
    """What differs between the weights in memory and those that were written."""
    if writer.kind == "projector":
        kept = dict(model.model.multi_modal_projector.state_dict())
        return unlike(kept, read_projector(folder / PROJECTOR_NAME))
    from peft import get_peft_model_state_dict

    kept = get_peft_model_state_dict(model, save_embedding_layers=False)
    problems = unlike(kept, read_tensors(folder / ADAPTER_WEIGHTS_NAME))
    held = {value.data_ptr() for value in kept.values()}
    lost = [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and weight.data_ptr() not in held
    ]
    return problems + [f"{name} trains, but the adapter does not hold it" for name in lost]


def unlike(kept: Mapping[str, Tensor], stored: Mapping[str, Tensor]) -> list[str]:
    """Tensors that only one side has, or that differ."""
    problems = [f"{name} was not written" for name in sorted(kept.keys() - stored.keys())]
    problems += [f"{name} was written and is unknown" for name in sorted(stored.keys() - kept.keys())]
    both = sorted(kept.keys() & stored.keys())
    return problems + [
        f"{name} reads back otherwise" for name in both if not kept[name].cpu().equal(stored[name])
    ]


def problems_of_weights(state: Mapping[str, Tensor], *, tied: bool) -> list[str]:
    """What `write_weights` or the strict reader would stumble over: unknown names, tensors that share memory
    (one of them would be left out in silence).
    """
    problems = []
    owner: dict[tuple[int, int], str] = {}
    for key, value in state.items():
        if tied and key == HEAD:
            continue
        try:
            if OURS.to_memory(OURS.to_disk(key)) != key:
                problems.append(f"{key} would be read as {OURS.to_memory(OURS.to_disk(key))}")
        except KeyError:
            problems.append(f"{key} has no name on disk")
        place = (value.untyped_storage().data_ptr(), value.storage_offset())
        if value.numel() and owner.setdefault(place, key) != key:
            problems.append(f"{key} shares its memory with {owner[place]}")
    return problems
