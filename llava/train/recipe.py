"""The training recipe from arguments to checkpoint, the same for full fine-tuning, LoRA and the projector
stage.
"""

import gc
import logging
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import EarlyStoppingCallback, PreTrainedTokenizerFast, TrainerCallback, set_seed
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_pt_utils import get_model_param_count

from llava.conversation import training_template
from llava.model.compiled import compile_layers
from llava.model.config import LlavaConfig
from llava.processing import load_image, process_image
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments, parse_arguments
from llava.train.checking import read_checked
from llava.train.checkpoint_store import CheckpointStore
from llava.train.collator import PackingCollator
from llava.train.conversations import ConversationDataset, Encoding, check_long_samples, open_store
from llava.train.guarded_run import train_guarded
from llava.train.held_out import Split, split_samples, write_split
from llava.train.kept_features import kept_features
from llava.train.length_grouping import length_of, modality_length_of
from llava.train.memory import bytes_of
from llava.train.micro_batches import choose_cut, cut_text, first_examples, use_cut
from llava.train.packing import Example
from llava.train.ranks_agree import on_first_rank
from llava.train.rehearsal import prepare_saving
from llava.train.resuming import find_origin, output_folder, step_of
from llava.train.sample_index import Sample, SampleIndex
from llava.train.sampler import EpochSampler, LengthOrder, PictureOrder, RowsOf
from llava.train.saving import CheckpointWriter
from llava.train.starting_model import Start, build_for_training, choose_trainable, whole_on_every_rank
from llava.train.step_batches import TokenCosts, tell_imbalance, token_costs
from llava.train.step_memory import checkpointing_for, memory_for, set_checkpointing
from llava.train.stop_signals import StoppedBySignal, StopSignals
from llava.train.summary import module_table, planned_steps, samples_per_step, show_sample, steps_of
from llava.train.token_store import TokenStore
from llava.train.trainer import LlavaTrainer

logger = logging.getLogger("llava")


def run(argv: list[str], *, callbacks: Sequence[TrainerCallback] = ()) -> None:
    """Train as the command line says; everything that the user gave is checked before the model is loaded."""
    model_args, data_args, training_args = parse_arguments(argv)
    logging.basicConfig(
        format="%(message)s", level=logging.INFO if training_args.process_index == 0 else logging.ERROR
    )
    with output_folder(Path(training_args.output_dir)):
        stopped = None
        try:
            run_in_folder(model_args, data_args, training_args, callbacks)
        except StoppedBySignal as error:
            stopped = error.with_traceback(None)  # what its frames hold must be gone before the group is
        leave_group()
        if stopped is not None:
            raise stopped


def run_in_folder(
    model_args: ModelArguments,
    data_args: DataArguments,
    training_args: TrainingArguments,
    callbacks: Sequence[TrainerCallback],
) -> None:
    """The run, in an output folder that no other run uses."""
    set_seed(training_args.seed)
    samples = read_checked(data_args.data_path, data_args.image_folder, mode=data_args.check_pictures)
    split = split_samples(samples, training_args.eval_split, seed=training_args.seed)
    origin = find_origin(model_args, data_args, training_args, samples, num_trained=len(split.train))
    if origin is None:
        return

    with whole_on_every_rank(training_args):
        start = build_for_training(model_args, data_args, training_args)
        trainable = choose_trainable(start.model, model_args, training_args)
    max_length = training_args.model_max_length
    encoding = encoding_of(start.tokenizer, start.model.config, model_args, max_length=max_length)
    dataset = ConversationDataset(samples, encoding, store_of(samples, encoding, training_args))
    check_long_samples(dataset)
    sampler = choose_sampler(samples, training_args, split.train if len(split.held_out) else None)
    collator = collator_of(start, samples, training_args)
    fit_to_memory(
        start,
        first_examples(sampler, dataset, training_args.train_batch_size),
        collator,
        model_args,
        training_args,
    )
    if training_args.compile_layers:
        compile_layers(start.model.model.language_model, training_args.compile_backend)
    trainer = LlavaTrainer(
        trainable,
        training_args,
        sampler=sampler,
        writer=writer_of(start, model_args, training_args),
        store=CheckpointStore(Path(training_args.output_dir), origin.facts, leads=training_args.should_save),
        train_dataset=dataset,
        callbacks=[*callbacks, *early_stopping(training_args)],
        data_collator=collator,
        costs=costs_of(dataset, sampler, training_args),
        **evaluation_of(dataset, split, start, training_args),
    )
    announce(trainer, dataset, origin.checkpoint)
    on_first_rank(partial(prepare_saving, trainer))
    train_to_the_end(trainer, origin.checkpoint)


def collator_of(start: Start, samples: Sequence[Sample], training_args: TrainingArguments) -> PackingCollator:
    """What makes rows of samples and opens their pictures, or takes what the tower saw in them."""
    load_pixels = partial(
        open_pixels,
        image_processor=start.image_processor,
        image_aspect_ratio=start.model.config.image_aspect_ratio,
    )
    features = kept_features(start, samples, load_pixels, training_args)
    return PackingCollator(
        training_args.packing, load_pixels, capacity=training_args.pack_tokens, vision_features=features
    )


def fit_to_memory(
    start: Start,
    examples: Sequence[Example],
    collator: PackingCollator,
    model_args: ModelArguments,
    args: TrainingArguments,
) -> None:
    """Set how many samples are computed at a time, and whether activations are checkpointed."""
    room = memory_for(args.device, bytes_of(start.model, trainable=False))
    cut = choose_cut(examples, collator, start.model.config, model_args, args, room=room)
    logger.info(cut_text(cut, args.train_batch_size))
    use_cut(cut, args)
    set_checkpointing(args, on=checkpointing_for(start.model, cut.largest, model_args, args))


def train_to_the_end(trainer: LlavaTrainer, resume_from: Path | None) -> None:
    """Train and write the result; `StoppedBySignal` after a signal."""
    started = time.perf_counter()
    with StopSignals() as signals:
        train_guarded(trainer, signals, resume_from)
        finish(trainer, time.perf_counter() - started, steps_before=step_of(resume_from))


def encoding_of(
    tokenizer: PreTrainedTokenizerFast,
    config: LlavaConfig,
    model_args: ModelArguments,
    *,
    max_length: int,
) -> Encoding:
    """How the run's conversations become tokens."""
    return Encoding(
        training_template(model_args.version),
        tokenizer,
        config.num_patches,
        max_length,
        start_end=config.mm_use_im_start_end,
    )


def costs_of(
    dataset: ConversationDataset, sampler: EpochSampler, args: TrainingArguments
) -> TokenCosts | None:
    """What deals samples to ranks by tokens; None for one rank, and in the order by length, which deals
    itself.
    """
    if args.world_size == 1 or args.group_by_modality_length or args.group_by_length:
        return None
    return token_costs(dataset, shares_prefixes=args.packing == "shared")


def evaluation_of(
    dataset: ConversationDataset, split: Split, start: Start, args: TrainingArguments
) -> dict[str, Any]:
    """What the trainer needs for samples that are held out; their rows are written into the output folder."""
    rows = split.held_out.tolist()
    if not rows:
        return {}
    # evaluation has no gradient, yet ZeRO-3 wants every rank to run every part of the model
    start.model.runs_every_part = args.world_size > 1
    if args.process_index == 0:
        write_split(Path(args.output_dir), SampleIndex.of(dataset.samples), split)
        logger.info("%d of %d samples are held out for evaluation.", len(rows), len(dataset))
    return {"eval_dataset": dataset, "held_out": rows}


def early_stopping(args: TrainingArguments) -> list[TrainerCallback]:
    """Ends the run after so many evaluations without a better loss."""
    patience = args.early_stopping_patience
    return [EarlyStoppingCallback(early_stopping_patience=patience)] if patience else []


def choose_sampler(
    samples: Sequence[Sample], args: TrainingArguments, rows: np.ndarray | None = None
) -> EpochSampler:
    """By picture; by length as in the original, where it is asked for and rows are not packed.

    `rows` (default: all) are those that are trained on.
    """
    seed = args.seed if args.data_seed is None else args.data_seed
    index = SampleIndex.of(samples)
    chosen = np.arange(len(index)) if rows is None else rows
    order: PictureOrder | LengthOrder
    if args.packing == "none" and (args.group_by_modality_length or args.group_by_length):
        measure = modality_length_of if args.group_by_modality_length else length_of
        words, with_picture = index.words[chosen].tolist(), (index.groups[chosen] >= 0).tolist()
        order = LengthOrder(
            [measure(count, has_picture=picture) for count, picture in zip(words, with_picture, strict=True)],
            by_modality=args.group_by_modality_length,
            batch_size=args.train_batch_size,
            world_size=args.world_size * args.gradient_accumulation_steps,
            seed=seed,
        )
    else:
        keys = [None if group < 0 else group for group in index.groups[chosen].tolist()]
        order = PictureOrder(keys, max_branches=args.max_branches, seed=seed)
    global_batch = args.train_batch_size * args.world_size
    return EpochSampler(
        order if rows is None else RowsOf(order, rows), num_samples=len(chosen), global_batch=global_batch
    )


def store_of(samples: Sequence[Sample], encoding: Encoding, args: TrainingArguments) -> TokenStore | None:
    """Where encoded samples are kept, if the run draws any of them twice."""
    count = partial(steps_of, len(samples), global_batch=samples_per_step(args))
    steps = count(epochs=args.num_train_epochs, max_steps=args.max_steps)
    return open_store(samples, encoding) if steps > count(epochs=1, max_steps=-1) else None


def writer_of(start: Start, model_args: ModelArguments, training_args: TrainingArguments) -> CheckpointWriter:
    """What is saved: the adapter with its base's name, the projector alone, or all weights."""
    lora = training_args.lora_enable
    return CheckpointWriter(
        kind="lora" if lora else "projector" if model_args.tune_mm_mlp_adapter else "full",
        tokenizer=start.tokenizer,
        image_processor=start.image_processor,
        base=start.folder if lora else None,
    )


def leave_group() -> None:
    """End the ranks' connections in order; left to the interpreter's end, a rank was seen to abort there.

    What still uses them (DDP) must be gone before: freed afterwards, it was seen to wait for the other ranks
    for ever.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


def open_pixels(path: str, *, image_processor: BaseImageProcessor, image_aspect_ratio: str) -> torch.Tensor:
    """A picture file to (3, H, W)."""
    return process_image(load_image(path), image_processor, image_aspect_ratio=image_aspect_ratio)


def announce(trainer: LlavaTrainer, dataset: ConversationDataset, resume_from: Path | None) -> None:
    """Log modules, one sample with its targets, and the steps to come."""
    args = trainer.args
    logger.info(module_table(trainer.model.named_parameters()))
    logger.info(
        "First sample, targets between ⟦ and ⟧:\n%s",
        show_sample(dataset.example(0).encoded, dataset.encoding.tokenizer),
    )
    logger.info(
        "%d samples, %d per step (%d ranks), packing %s: %d steps%s",
        trainer.sampler.num_samples,
        samples_per_step(args),
        args.world_size,
        args.packing,
        planned_steps(args, trainer.sampler.num_samples),
        "" if resume_from is None else f", going on from {resume_from.name}",
    )
    tell_imbalance(trainer.step_batches())


def finish(trainer: LlavaTrainer, seconds: float, *, steps_before: int) -> None:
    """Write the result into the output folder and say where it is and how long this process took."""
    args = trainer.args
    trainer.save_result()
    num_samples = trainer.sampler.num_samples
    steps_per_epoch = steps_of(num_samples, global_batch=samples_per_step(args), epochs=1, max_steps=-1)
    steps = trainer.state.global_step - steps_before
    samples = num_samples * steps / steps_per_epoch
    logger.info(
        "Trained %s weights for %d steps in %.1f s (%.1f samples/s). Checkpoint: %s",
        f"{get_model_param_count(trainer.model, trainable_only=True):,}",
        steps,
        seconds,
        samples / max(seconds, 1e-9),
        args.output_dir,
    )
