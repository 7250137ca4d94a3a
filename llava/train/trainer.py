"""HF Trainer with what LLaVA needs: group order, a rate for the projector, losses per target, and our
checkpoints.

Stock Trainer restores full LLaVA weights without strict names and so may restore nothing; here loading is
strict.
"""

import json
import logging
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import EvalLoopOutput, seed_worker

from llava.model.checkpoint import EMBEDDINGS, load_strictly, read_projector, read_weights
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import PROJECTOR_NAME
from llava.train.evaluating import mean_loss
from llava.train.loader_notes import IDS_KEY, LoaderNotes, NotingCollator, NotingDataset
from llava.train.sampler import EpochSampler
from llava.train.saving import CheckpointWriter
from llava.train.step_batches import StepBatches, TokenCosts
from llava.train.step_guard import StepGuard
from llava.train.step_progress import StepProgress
from llava.train.stop_signals import shield_worker

logger = logging.getLogger(__name__)

COMPLETE_NAME = "complete.json"
PROJECTOR_PATH = "multi_modal_projector"


class LlavaTrainer(Trainer):
    """`sampler` gives the order of samples, `writer` writes checkpoints of our layout.

    `costs` deal the samples of a step to the ranks; `held_out` are rows of the dataset to evaluate on.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        sampler: EpochSampler,
        writer: CheckpointWriter,
        costs: TokenCosts | None = None,
        held_out: Sequence[int] = (),
        **kwargs: object,
    ) -> None:
        self.sampler = sampler
        self.writer = writer
        self.costs, self.held_out = costs, held_out
        self.notes = LoaderNotes(args.dataloader_num_workers)
        self.progress = StepProgress(args.process_index, args.world_size)
        self.guard = StepGuard(self.progress, writer.tokenizer)
        super().__init__(model=model, args=args, **kwargs)
        self.add_callback(EpochCallback(self.sampler))
        self.add_callback(self.guard)  # last: it ends the run after a checkpoint

    def get_train_dataloader(self) -> DataLoader:
        return self._loader(self.train_dataset, self.step_batches())

    def step_batches(self) -> StepBatches:
        """The batches of an epoch, of all ranks."""
        return StepBatches(
            self.sampler,
            batch_size=self._train_batch_size,
            num_ranks=self.args.world_size,
            costs=self.costs,
        )

    def get_eval_dataloader(self, eval_dataset: str | Dataset | None = None) -> DataLoader:
        size, num_ranks = self.args.eval_batch_size, self.args.world_size
        order = EpochSampler(
            lambda _: list(self.held_out), num_samples=len(self.held_out), global_batch=size * num_ranks
        )
        batches = StepBatches(order, batch_size=size, num_ranks=num_ranks, costs=self.costs)
        return self._loader(self.eval_dataset, batches)

    def _loader(self, dataset: Any, batches: StepBatches) -> DataLoader:
        """Batches of this rank; loader processes note what they do, and heed no signal but ours."""
        args = self.args
        seed = partial(seed_worker, num_workers=args.dataloader_num_workers, rank=args.process_index)
        loader = DataLoader(
            NotingDataset(dataset, self.notes),
            batch_sampler=batches,
            collate_fn=NotingCollator(self.data_collator, self.notes),
            num_workers=args.dataloader_num_workers,
            pin_memory=args.dataloader_pin_memory,
            persistent_workers=args.dataloader_persistent_workers,
            multiprocessing_context=args.dataloader_multiprocessing_context,
            prefetch_factor=args.dataloader_prefetch_factor,
            worker_init_fn=partial(start_worker, seed),
        )
        return self.accelerator.prepare_data_loader(loader)

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list, Tensor | int | None]:
        """The micro-batches of a step; their samples' ids go to the guard."""
        step = self.state.global_step + 1
        self.progress.enter("waiting for its batch", step=step)
        batches, count = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.guard.begin(batches, [batch.pop(IDS_KEY) for batch in batches])
        return batches, count

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        number, ids = len(self.guard.losses), self.guard.ids
        doing = "computing" if len(ids) == 1 else f"computing micro-batch {number + 1} of {len(ids)}"
        self.progress.enter(doing, step=self.state.global_step + 1, ids=ids[number])
        return self.guard.keep_loss(super().training_step(model, inputs, num_items_in_batch))

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        found = super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if self.is_deepspeed_enabled and model.training and not return_outputs:
            self.guard.check_before_backward(found, self.args, self.state.global_step + 1)
        return found

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        self.guard.norm = super()._get_grad_norm(model, grad_norm)
        return self.guard.norm

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """The loss per target of the samples held out."""
        at_batch = partial(self.progress.enter, "evaluating", step=self.state.global_step)
        loss, targets = mean_loss(self.model_wrapped, dataloader, self.args.device, at_batch=at_batch)
        saves = self.control.should_save
        self.progress.enter("after evaluating", step=self.state.global_step, watched=not saves)
        metrics = {f"{metric_key_prefix}_loss": loss, f"{metric_key_prefix}_targets": targets}
        return EvalLoopOutput(None, None, metrics, len(self.held_out))

    def _load_best_model(self) -> None:
        """The best checkpoint, by strict names; stock Trainer would pass over names that do not fit."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self._load_from_checkpoint(str(self.state.best_model_checkpoint))

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


def start_worker(seed: Any, worker: int) -> None:
    """At the start of a loader process."""
    seed(worker)
    shield_worker()


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
