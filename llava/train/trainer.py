"""HF Trainer with what LLaVA needs: group order, a rate for the projector, losses per target, and our
checkpoints.

Stock Trainer restores full LLaVA weights without strict names and so may restore nothing; here loading is
strict.
"""

import json
import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from llava.errors import UsageError
from llava.model.checkpoint import EMBEDDINGS, load_strictly, read_projector, read_weights
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import PROJECTOR_NAME
from llava.train.sampler import EpochSampler
from llava.train.saving import CheckpointWriter

logger = logging.getLogger(__name__)

COMPLETE_NAME = "complete.json"
PROJECTOR_PATH = "multi_modal_projector"


class LlavaTrainer(Trainer):
    """`sampler` gives the order of samples, `writer` writes checkpoints of our layout."""

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        sampler: EpochSampler,
        writer: CheckpointWriter,
        **kwargs: object,
    ) -> None:
        self.sampler = sampler
        self.writer = writer
        super().__init__(model=model, args=args, **kwargs)
        self.add_callback(EpochCallback(self.sampler))
        self.add_callback(FiniteLossCallback())

    def _get_train_sampler(self, train_dataset: Dataset | None = None) -> Sampler[int | None]:
        return self.sampler

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor:
        """Targets of the global batch: over accumulation steps and ranks; 1 where there is none, so that its
        loss is 0 and no number to stop at.
        """
        count = torch.tensor(sum(len(batch["targets"]) for batch in batch_samples), device=device)
        total = self.accelerator.gather(count).sum() if self.args.world_size > 1 else count
        return total.clamp(min=1)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            source = self.model if model is None else model
            groups = optimizer_groups(
                source,
                set(self.get_decay_parameter_names(source)),
                self.args.weight_decay,
                self.args.mm_projector_lr,
            )
            optimizer_class, options = self.get_optimizer_cls_and_kwargs(self.args, source)
            self.optimizer = optimizer_class(groups, **options)
        return self.optimizer

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if self.args.should_save:
            self.writer.write(
                self.accelerator.unwrap_model(self.model),
                Path(output_dir or self.args.output_dir),
                state_dict,
            )

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:
        """Stock saving, then a mark that everything is there; a folder without it is never resumed from."""
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            if folder.is_dir():
                (folder / COMPLETE_NAME).write_text(
                    json.dumps({"step": self.state.global_step}), encoding="utf-8"
                )

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        folder = Path(resume_from_checkpoint)
        target = self.accelerator.unwrap_model(self.model if model is None else model)
        if self.writer.kind == "lora":
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif self.writer.kind == "projector":
            file = folder / PROJECTOR_NAME
            target.model.multi_modal_projector.load_state_dict(read_projector(file), strict=True)
            if target.config.mm_use_im_start_end:
                stored = {"weight": read_tensors(file)[EMBEDDINGS]}
                target.get_input_embeddings().load_state_dict(stored, strict=True)
        else:
            load_strictly(target, read_weights(folder), tied=target.config.tie_word_embeddings, source=folder)


def optimizer_groups(
    model: nn.Module, decayed: set[str], weight_decay: float, projector_rate: float | None
) -> list[dict[str, object]]:
    """Trainable weights by (decay or not) x (projector with its own rate or not); empty groups are left
    out.
    """
    groups = []
    for is_projector in (False, True):
        for has_decay in (True, False):
            weights = [
                weight
                for name, weight in model.named_parameters()
                if weight.requires_grad
                and (projector_rate is not None and PROJECTOR_PATH in name) == is_projector
                and (name in decayed) == has_decay
            ]
            if weights:
                group = {"params": weights, "weight_decay": weight_decay if has_decay else 0.0}
                groups.append(group | ({"lr": projector_rate} if is_projector else {}))
    return groups


class EpochCallback(TrainerCallback):
    """Tells the sampler which epoch begins."""

    def __init__(self, sampler: EpochSampler) -> None:
        self.sampler = sampler

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.sampler.set_epoch(int(state.epoch or 0))


class FiniteLossCallback(TrainerCallback):
    """Stops at a loss that is not finite: the stock Trainer would go on and overwrite the last good
    checkpoint.
    """

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        loss = (state.log_history or [{}])[-1].get("loss", 0.0)
        if loss != loss or abs(loss) == float("inf"):
            raise UsageError(
                f"the loss at step {state.global_step} is {loss}; training stops before a checkpoint is "
                "overwritten. Lower --learning_rate, or use bf16 instead of fp16."
            )


def last_checkpoint(output_dir: Path) -> Path | None:
    """The newest complete `checkpoint-N` of an output folder; incomplete ones (a kill while saving) are named
    and left.
    """
    found = []
    for folder in output_dir.glob("checkpoint-*"):
        if not folder.name.removeprefix("checkpoint-").isdigit():
            continue
        if (folder / COMPLETE_NAME).is_file():
            found.append(folder)
        else:
            logger.warning("%s is incomplete (its saving was interrupted) and is not used.", folder)
    return max(found, key=step_of, default=None)


def step_of(checkpoint: Path | None) -> int:
    """The step after which a `checkpoint-N` was written; 0 for a fresh start."""
    return 0 if checkpoint is None else int(checkpoint.name.removeprefix("checkpoint-"))
