"""The training recipe from arguments to checkpoint, the same for full fine-tuning, LoRA and the projector
stage.
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase, set_seed
from transformers.image_processing_utils import BaseImageProcessor
from transformers.trainer_pt_utils import get_model_param_count

from llava.conversation import training_template
from llava.errors import UsageError
from llava.model.builder import Parts, assemble, build, is_llava, load_projector, read_contents
from llava.model.checkpoint import ADAPTER_CONFIG_NAME
from llava.model.llava import LlavaForCausalLM
from llava.model.lora import LoraSettings, add_lora
from llava.processing import load_image, load_image_processor, process_image
from llava.tokenizer import load_tokenizer
from llava.train.arguments import DataArguments, ModelArguments, TrainingArguments, parse_arguments
from llava.train.collator import PackingCollator
from llava.train.conversations import ConversationDataset, Encoding, check_long_samples
from llava.train.samples import check_pictures, read_samples
from llava.train.saving import CheckpointWriter
from llava.train.summary import module_table, show_sample, steps_of
from llava.train.trainer import LlavaTrainer, last_checkpoint, step_of

logger = logging.getLogger("llava")


def run(argv: list[str]) -> None:
    """Train as the command line says; everything that the user gave is checked before the model is loaded."""
    model_args, data_args, training_args = parse_arguments(argv)
    logging.basicConfig(
        format="%(message)s", level=logging.INFO if training_args.process_index == 0 else logging.ERROR
    )
    set_seed(training_args.seed)
    resume_from = check_output_folder(Path(training_args.output_dir))
    samples = read_samples(data_args.data_path, data_args.image_folder)
    check_pictures(samples, data_args.check_pictures)

    with whole_on_every_rank(training_args):
        model, tokenizer, image_processor = build_for_training(model_args, data_args, training_args)
        trainable = choose_trainable(model, model_args, training_args)
    encoding = Encoding(
        training_template(model_args.version),
        tokenizer,
        model.num_patches,
        training_args.model_max_length,
        start_end=model.config.mm_use_im_start_end,
    )
    dataset = ConversationDataset(samples, encoding)
    check_long_samples(dataset)
    trainer = LlavaTrainer(
        trainable,
        training_args,
        group_keys=[sample.images or None for sample in samples],
        writer=writer_of(model_args, training_args, tokenizer, image_processor),
        train_dataset=dataset,
        data_collator=PackingCollator(
            training_args.packing,
            partial(
                open_pixels,
                image_processor=image_processor,
                image_aspect_ratio=model.config.image_aspect_ratio,
            ),
        ),
    )
    announce(trainer, dataset, resume_from)
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=None if resume_from is None else str(resume_from))
    finish(trainer, time.perf_counter() - started, steps_before=step_of(resume_from))
    leave_group()


def writer_of(
    model_args: ModelArguments,
    training_args: TrainingArguments,
    tokenizer: PreTrainedTokenizerBase,
    image_processor: BaseImageProcessor,
) -> CheckpointWriter:
    """What is saved: the adapter with its base's name, the projector alone, or all weights."""
    lora = training_args.lora_enable
    return CheckpointWriter(
        kind="lora" if lora else "projector" if model_args.tune_mm_mlp_adapter else "full",
        tokenizer=tokenizer,
        image_processor=image_processor,
        base=Path(model_args.model_name_or_path) if lora else None,
    )


def leave_group() -> None:
    """End the ranks' connections in order; left to the interpreter's end, a rank was seen to abort there."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()


@contextmanager
def whole_on_every_rank(training_args: TrainingArguments) -> Iterator[None]:
    """Hide DeepSpeed while the model is built: under ZeRO-3 transformers would hand out empty weights.

    Every rank loads the whole model into main memory, strictly; the engine cuts it up afterwards.
    """
    if not training_args.deepspeed:
        yield
        return
    from transformers.integrations.deepspeed import set_hf_deepspeed_config, unset_hf_deepspeed_config

    unset_hf_deepspeed_config()
    try:
        yield
    finally:
        set_hf_deepspeed_config(training_args.hf_deepspeed_config)


def open_pixels(path: str, *, image_processor: BaseImageProcessor, image_aspect_ratio: str) -> torch.Tensor:
    """A picture file to (3, H, W)."""
    return process_image(load_image(path), image_processor, image_aspect_ratio=image_aspect_ratio)


def check_output_folder(folder: Path) -> Path | None:
    """The checkpoint to go on from, None for a fresh start; `UsageError` when the folder holds a finished or
    foreign run.
    """
    if not folder.exists():
        return None
    if not folder.is_dir():
        raise UsageError(f"--output_dir {folder} is a file; name a folder.")
    checkpoint = last_checkpoint(folder)
    if checkpoint is None and any(folder.glob("*.safetensors")):
        raise UsageError(
            f"--output_dir {folder} already holds a finished run; name another folder or remove it."
        )
    foreign = [entry.name for entry in folder.iterdir() if (entry / "config.json").is_file()]
    if checkpoint is None and foreign and not any(name.startswith("checkpoint-") for name in foreign):
        raise UsageError(
            f"--output_dir {folder} holds other runs ({', '.join(foreign[:3])}); name another folder."
        )
    return checkpoint


def build_for_training(
    model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments
) -> tuple[LlavaForCausalLM, PreTrainedTokenizerBase, BaseImageProcessor]:
    """The model in fp32 on the CPU: a LLaVA checkpoint as it is, or a language model with a vision tower and
    a new projector.
    """
    folder = Path(model_args.model_name_or_path)
    if (folder / ADAPTER_CONFIG_NAME).is_file():
        raise UsageError(
            f"{folder} is a LoRA adapter; training goes on from a full checkpoint (merge it first)."
        )
    dtype = torch.bfloat16 if training_args.bf16 and training_args.deepspeed else torch.float32
    if is_llava(folder):
        contents = read_contents(folder)
        model = build(contents, dtype=dtype)
        if model_args.pretrain_mm_mlp_adapter:
            load_projector(model, Path(model_args.pretrain_mm_mlp_adapter))
        tower_folder = contents.picture_folder
    else:
        if not model_args.vision_tower:
            raise UsageError(
                f"{folder} is a language model without a vision tower; name one with --vision_tower."
            )
        tower_folder = Path(model_args.vision_tower)
        model = assemble(folder, tower_folder, parts_of(model_args, data_args, training_args), dtype=dtype)
    model.config.image_aspect_ratio = data_args.image_aspect_ratio or model.config.image_aspect_ratio
    model.config.conv_template = training_template(model_args.version).name
    model.config.tokenizer_model_max_length = training_args.model_max_length
    model.config.use_cache = False
    on_cpu = training_args.device.type == "cpu"
    set_attention(model, training_args.attn_implementation, prefer_eager=on_cpu and training_args.bf16)
    return model, load_tokenizer(folder), load_image_processor(tower_folder)


def parts_of(model_args: ModelArguments, data_args: DataArguments, training_args: TrainingArguments) -> Parts:
    """What the flags say about a LLaVA that is put together."""
    projector_file = model_args.pretrain_mm_mlp_adapter
    return Parts(
        projector_type=model_args.mm_projector_type,
        select_layer=model_args.mm_vision_select_layer,
        select_feature=model_args.mm_vision_select_feature,
        image_aspect_ratio=data_args.image_aspect_ratio or "square",
        conv_template=training_template(model_args.version).name,
        max_length=training_args.model_max_length,
        projector_file=Path(projector_file) if projector_file else None,
    )


def set_attention(model: LlavaForCausalLM, implementation: str, *, prefer_eager: bool) -> None:
    """Choose the language model's attention; `auto` is eager on a CPU under bf16 (fastest there), else
    SDPA.
    """
    if implementation == "auto":
        implementation = "eager" if prefer_eager else "sdpa"
    model.model.language_model.set_attn_implementation(implementation)


def choose_trainable(
    model: LlavaForCausalLM, model_args: ModelArguments, training_args: TrainingArguments
) -> torch.nn.Module:
    """Set which weights train, add LoRA if asked; frozen weights go to bf16 where training computes in it."""
    parts = model.model
    model.requires_grad_(True)
    parts.vision_tower.requires_grad_(not model_args.freeze_vision_tower)
    if model_args.freeze_backbone:  # the original leaves head and projector trainable
        parts.language_model.requires_grad_(False)
    if model_args.tune_mm_mlp_adapter:
        model.requires_grad_(False)
    parts.multi_modal_projector.requires_grad_(not training_args.freeze_mm_mlp_adapter)
    trainable: torch.nn.Module = model
    if training_args.lora_enable:
        if model_args.tune_mm_mlp_adapter:
            raise UsageError("--lora_enable and --tune_mm_mlp_adapter exclude each other; drop one.")
        settings = LoraSettings(
            rank=training_args.lora_r,
            alpha=training_args.lora_alpha,
            dropout=training_args.lora_dropout,
            bias=training_args.lora_bias,
            train_projector=not training_args.freeze_mm_mlp_adapter,
        )
        trainable = add_lora(model, settings)
    if training_args.bf16 and not training_args.deepspeed:
        for weight in trainable.parameters():
            if not weight.requires_grad:
                weight.data = weight.data.to(torch.bfloat16)
    return trainable


def samples_per_step(args: TrainingArguments) -> int:
    """Samples of the global batch: over accumulation steps and ranks."""
    return args.train_batch_size * args.gradient_accumulation_steps * args.world_size


def announce(trainer: LlavaTrainer, dataset: ConversationDataset, resume_from: Path | None) -> None:
    """Log modules, one sample with its targets, and the steps to come."""
    args = trainer.args
    logger.info(module_table(trainer.model.named_parameters()))
    logger.info(
        "First sample, targets between ⟦ and ⟧:\n%s",
        show_sample(dataset.example(0).encoded, dataset.encoding.tokenizer),
    )
    global_batch = samples_per_step(args)
    logger.info(
        "%d samples, %d per step (%d ranks), packing %s: %d steps%s",
        len(dataset),
        global_batch,
        args.world_size,
        args.packing,
        steps_of(
            len(dataset), global_batch=global_batch, epochs=args.num_train_epochs, max_steps=args.max_steps
        ),
        "" if resume_from is None else f", going on from {resume_from.name}",
    )


def finish(trainer: LlavaTrainer, seconds: float, *, steps_before: int) -> None:
    """Write the result into the output folder and say where it is and how long this process took."""
    args = trainer.args
    trainer.save_model()
    trainer.save_state()
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
