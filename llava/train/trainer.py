"""HF Trainer with what LLaVA needs: group order, a rate for the projector, losses per target, and our
checkpoints.

Stock Trainer restores full LLaVA weights without strict names and so may restore nothing; here loading is
strict.
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from llava.errors import UsageError
from llava.model.checkpoint import EMBEDDINGS, load_strictly, read_projector, read_weights
from llava.model.stored_tensors import read_tensors
from llava.model.weight_files import PROJECTOR_NAME
from llava.train.checkpoint_store import CheckpointStore, Part
from llava.train.manifest import Position
from llava.train.sampler import EpochSampler
from llava.train.saving import CheckpointWriter
from llava.train.summary import position_after

PROJECTOR_PATH = "multi_modal_projector"


class LlavaTrainer(Trainer):
    """`sampler` gives the order of samples, `writer` writes checkpoints of our layout, `store` lets them
    appear whole.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        sampler: EpochSampler,
        writer: CheckpointWriter,
        store: CheckpointStore,
        **kwargs: object,
    ) -> None:
        self.sampler = sampler
        self.writer = writer
        self.store = store
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
