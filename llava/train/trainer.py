"""HF Trainer with what LLaVA needs: group order, a rate for the projector, losses per target, and our
checkpoints.

Stock Trainer restores full LLaVA weights without strict names and so may restore nothing; here loading is
strict.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import EvalLoopOutput, seed_worker

from llava.model.checkpoint import EMBEDDINGS, load_strictly, read_projector, read_weights
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import PROJECTOR_NAME
from llava.train.checkpoint_store import CheckpointStore, Part
from llava.train.evaluating import mean_loss
from llava.train.loader_notes import IDS_KEY, LoaderNotes, NotingCollator, NotingDataset
from llava.train.manifest import Position
from llava.train.sampler import EpochSampler
from llava.train.saving import CheckpointWriter
from llava.train.step_batches import StepBatches, TokenCosts
from llava.train.step_guard import StepGuard
from llava.train.step_progress import StepProgress
from llava.train.stop_signals import shield_worker
from llava.train.summary import position_after

PROJECTOR_PATH = "multi_modal_projector"


class LlavaTrainer(Trainer):
    """`sampler` gives the order of samples, `writer` writes checkpoints of our layout, `store` lets them
    appear whole.

    `costs` deal the samples of a step to the ranks; `held_out` are rows of the dataset to evaluate on.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        sampler: EpochSampler,
        writer: CheckpointWriter,
        store: CheckpointStore,
        costs: TokenCosts | None = None,
        held_out: Sequence[int] = (),
        **kwargs: object,
    ) -> None:
        self.sampler = sampler
        self.writer = writer
        self.store = store
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
        """As the stock Trainer in what is saved, not in how: the folder appears whole or not at all."""
        self.store_flos()
        self._note_best_checkpoint()
        parts: list[Part] = [self._save_weights]
        if not self.args.save_only_model:
            # the stock Trainer's parts take their folder as a text
            states = (self._save_optimizer_and_scheduler, self._save_scaler, self._save_rng_state)
            parts += [lambda folder, save=save: save(str(folder)) for save in states]
        target = self.store.save_checkpoint(
            [*parts, self._save_trainer_state],
            self._position(),
            limit=self.args.save_total_limit,
            best=Path(self.state.best_model_checkpoint) if self.state.best_model_checkpoint else None,
            resumable=not self.args.save_only_model,
        )
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(target))

    def save_result(self) -> None:
        """Write what was trained, and the state of the run, into the output folder."""
        parts: list[Part] = [
            self._save_weights,
            lambda folder: (
                self.args.should_save and self.state.save_to_json(str(folder / "trainer_state.json"))
            ),
        ]
        self.store.save_result(parts, self._position())
        if self.args.push_to_hub:
            self.push_to_hub(commit_message="Model save", revision=self.args.hub_revision)

    def _position(self) -> Position:
        return position_after(self.state.global_step, self.args, self.sampler.num_samples)

    def _save_weights(self, folder: Path) -> None:
        self.save_model(str(folder), _internal_call=True)

    def _note_best_checkpoint(self) -> None:
        """Where the best checkpoint is or will be, for the state that is saved with this one."""
        if self.state.best_global_step:
            best = self.store.output_dir / f"checkpoint-{self.state.best_global_step}"
            if self.state.best_global_step == self.state.global_step or best.is_dir():
                self.state.best_model_checkpoint = str(best)

    def _save_trainer_state(self, folder: Path) -> None:
        """The state of the run and of its callbacks."""
        if not self.args.should_save:
            return
        kept = self.state.stateful_callbacks or {}
        for callback in [*self.callback_handler.callbacks, self.control]:
            if not isinstance(callback, ExportableState):
                continue
            name = callback.__class__.__name__
            if isinstance(kept[name], list):
                kept[name].append(callback.state())
            else:
                kept[name] = callback.state()
        self.state.save_to_json(str(folder / "trainer_state.json"))

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
