"""One run of the training benchmark: one mode, in this process, through the Trainer that it really uses.

    python -m benchmarks.training_run '{"shape": "mini", "mode": "shared", ...}'

`benchmarks.train` starts it; the last line of its output is JSON, see `Run`.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import Tensor
from torch.nn import functional
from torch.utils.data import SequentialSampler
from transformers import LlavaConfig as TheirConfig
from transformers import LlavaForConditionalGeneration, Trainer, TrainerCallback

from benchmarks.record import PeakMemory
from benchmarks.shapes import SHAPES, Shape, config_of, fill_randomly
from benchmarks.workload import merged, workload_of
from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.train.arguments import ModelArguments, TrainingArguments
from llava.train.attention_choice import set_attention
from llava.train.collator import PackingCollator, pad
from llava.train.micro_batches import choose_cut, use_cut
from llava.train.packing import Example
from llava.train.sampler import EpochSampler
from llava.train.saving import CheckpointWriter
from llava.train.starting_model import choose_trainable
from llava.train.step_memory import memory_for
from llava.train.trainer import LlavaTrainer
from llava.train.vision_cache import Seer, keep_in_memory

PACKING = {
    "none": "none",
    "packed": "packed",
    "shared": "shared",
    "kept": "shared",
    "checkpointed": "shared",
    "merged": "none",
    "none-cut": "none",
}
"""Our modes, and the --packing that they run with."""
CUT = ("packed", "shared", "kept", "checkpointed", "none-cut", "hf-cut")
"""Modes that compute as many samples at a time as our recipe would choose for `shared`."""
KEPT = ("kept", "checkpointed")
"""Modes that have seen all pictures before the first step, as in later epochs."""
CHECKPOINTED = ("none", "none-cut", "checkpointed")


@dataclass(frozen=True)
class Task:
    """What is run: `pictures` per step with `questions` each; steps beyond `warmup` are measured."""

    shape: str
    mode: str
    method: str
    pictures: int
    questions: int
    question_tokens: int
    answer_tokens: int
    steps: int
    warmup: int
    bf16: bool
    lora_r: int
    threads: int
    seed: int = 0


@dataclass
class Run:
    """Seconds and processor seconds per measured step; losses and gradient norms of all steps; peak memory in
    bytes, of the GPU, or of the process above what it held before the model; positions and padding of a mean
    step.
    """

    seconds: list[float] = field(default_factory=list)
    processor_seconds: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    gradient_norms: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    samples_at_a_time: int = 0
    positions: int = 0
    padding: int = 0


class OriginalWay(LlavaForCausalLM):
    """The head on all positions and a loss over all of them, as the original trains."""

    def loss_at(self, hidden: Tensor, targets: Tensor, num_items_in_batch: Tensor | int | None) -> Tensor:
        labels = torch.full(hidden.shape[:2], IGNORE_INDEX, device=hidden.device)
        labels[targets[:, 0], targets[:, 1]] = targets[:, 2]
        logits = self.lm_head(hidden).float()
        total = functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        self.num_head_positions = labels.numel()
        return total / (len(targets) if num_items_in_batch is None else num_items_in_batch)


class InOrder(Trainer):
    """transformers' Trainer on the samples as they stand, so that all modes see the same steps."""

    def _get_train_sampler(self, train_dataset: Any = None) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


class Clock(TrainerCallback):
    """When each step ended; a step's time begins where the last one's ends, so data loading is inside.

    Beside the clock on the wall, the processor's time is taken: it says more on a machine that is shared.
    """

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.processor: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.ends.append(time.perf_counter())
        self.processor.append(time.process_time())


class Counting:
    """A collator that counts positions and padding of all batches."""

    def __init__(self, collate: Callable[[Sequence[Example]], dict[str, Tensor]]) -> None:
        self.collate = collate
        self.positions = self.padding = 0

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        batch = self.collate(examples)
        own = batch["input_ids"].numel()
        self.positions += own
        if "attention_mask" in batch:
            self.padding += int((batch["attention_mask"] == 0).sum())
        elif "group_ids" in batch:
            self.padding += int((batch["group_ids"] < 0).sum())
        else:  # rows of one sample each
            self.padding += own - sum(len(one.encoded.input_ids) for one in examples)
        return batch


@dataclass(frozen=True)
class TheirCollator:
    """Rows for transformers' LLaVA: padded, placeholders by its image token, one picture per sample."""

    image_token_id: int
    load_pixels: Callable[[str], Tensor]

    def __call__(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        ids = [
            [self.image_token_id if token == IMAGE_TOKEN_INDEX else token for token in one.encoded.input_ids]
            for one in examples
        ]
        return {
            "input_ids": pad(ids, 0),
            "attention_mask": pad([[1] * len(row) for row in ids], 0),
            "labels": pad([one.encoded.labels for one in examples], IGNORE_INDEX),
            "pixel_values": torch.stack([self.load_pixels(path) for one in examples for path in one.images]),
        }


@dataclass(frozen=True)
class RandomPictures:
    """Pixels (3, S, S) that depend on the picture's name; the same in every mode, and at hand at once."""

    size: int

    def __call__(self, name: str) -> Tensor:
        step, _, picture = name.partition("/")
        generator = torch.Generator().manual_seed(1000 * int(step) + int(picture))
        return torch.randn(3, self.size, self.size, generator=generator)


def their_config(ours: LlavaConfig) -> TheirConfig:
    """transformers' configuration of the same model; the last id of the vocabulary stands for pictures."""
    return TheirConfig(
        text_config=ours.text_config,
        vision_config=ours.vision_config,
        image_token_index=ours.text_config.vocab_size - 1,
        vision_feature_layer=ours.mm_vision_select_layer,
        vision_feature_select_strategy="default",
        image_seq_length=ours.num_patches,
        tie_word_embeddings=ours.tie_word_embeddings,
    )


def is_theirs(task: Task) -> bool:
    """Whether transformers' LLaVA is run, not ours."""
    return task.mode.startswith("hf")


def cut_batches(task: Task, args: TrainingArguments, examples: Sequence[Example]) -> None:
    """Set how many samples are computed at a time, as the recipe does."""
    if task.mode not in CUT:
        return
    collate = PackingCollator("shared", RandomPictures(SHAPES[task.shape].image_size))
    config = config_of(SHAPES[task.shape])
    room = memory_for(args.device, loaded=0)
    use_cut(choose_cut(examples, collate, config, ModelArguments(task.shape), args, room=room), args)


def build(task: Task, shape: Shape, args: TrainingArguments) -> torch.nn.Module:
    """The model with random weights on its device, with LoRA where asked; its vision tower is frozen."""
    config: Any = config_of(shape)
    kinds = {"none": OriginalWay, "hf": LlavaForConditionalGeneration}
    kind: Any = kinds.get(task.mode.removesuffix("-cut"), LlavaForCausalLM)
    if is_theirs(task):
        config = their_config(config)
    with init_empty_weights(include_buffers=False):
        model = kind._from_config(config, dtype=torch.float32)
    model.config.use_cache = False
    if not is_theirs(task):
        set_attention(model, args)
    model_args = ModelArguments(model_name_or_path=task.shape)
    trainable = choose_trainable(model, model_args, args)
    fill_randomly(trainable, seed=task.seed, device=args.device)
    model.tie_weights()
    return trainable.to(args.device)


def arguments(task: Task, shape: Shape, folder: str) -> TrainingArguments:
    """As the training scripts set them, without dropout (its random numbers differ between modes).

    Gradient checkpointing is on in `none`, as the original trains, in `checkpointed`, and elsewhere where the
    shape needs it.
    """
    return TrainingArguments(
        output_dir=folder,
        packing=PACKING.get(task.mode, "none"),
        lora_enable=task.method == "lora",
        lora_r=task.lora_r,
        lora_alpha=2 * task.lora_r,
        lora_dropout=0.0,
        bf16=task.bf16,
        use_cpu=not torch.cuda.is_available(),
        gradient_checkpointing=task.mode in CHECKPOINTED or shape.checkpointing,
        per_device_train_batch_size=task.pictures * (1 if task.mode == "merged" else task.questions),
        max_steps=task.warmup + task.steps,
        learning_rate=2e-4,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        disable_tqdm=True,
    )


def collator_of(
    task: Task, model: torch.nn.Module, args: TrainingArguments, examples: Sequence[Example]
) -> Callable[[Sequence[Example]], dict[str, Tensor]]:
    """What makes batches in a mode; kept features are computed here, before the clock runs."""
    shape = SHAPES[task.shape]
    load_pixels = RandomPictures(shape.image_size)
    if is_theirs(task):
        return TheirCollator(shape.vocabulary - 1, load_pixels)
    features = None
    if task.mode in KEPT:
        inner: Any = model.get_base_model() if task.method == "lora" else model
        paths = list(dict.fromkeys(path for one in examples for path in one.images))
        autocast = torch.bfloat16 if task.bf16 else None
        features = keep_in_memory(Seer(inner, load_pixels, args.device, autocast), paths)
    return PackingCollator(PACKING[task.mode], load_pixels, vision_features=features)


def trainer_of(
    task: Task, model: torch.nn.Module, args: TrainingArguments, examples: list[Example], collate: Counting
) -> Trainer:
    """transformers' Trainer for `hf`, ours for the other modes, on the same samples in the same order."""
    data: dict[str, Any] = {"train_dataset": examples, "data_collator": collate}
    if is_theirs(task):
        return InOrder(model, args, **data)
    order = list(range(len(examples)))
    sampler = EpochSampler(lambda _: order, num_samples=len(order), global_batch=args.train_batch_size)
    nothing: Any = None
    return LlavaTrainer(
        model,
        args,
        sampler=sampler,
        writer=CheckpointWriter("full", nothing, nothing),
        store=nothing,
        **data,
    )


def differences(times: Sequence[float]) -> list[float]:
    """Between each and the next."""
    return [after - before for before, after in pairwise(times)]


def measure(task: Task) -> Run:
    """Train, and say how it went."""
    torch.set_num_threads(task.threads)
    shape = SHAPES[task.shape]
    workload = workload_of(shape, asdict(task))
    steps = [workload.step(number) for number in range(task.warmup + task.steps)]
    examples = [one for step in steps for one in (merged(step) if task.mode == "merged" else step)]
    clock, peak = Clock(), PeakMemory()
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(task, shape, folder)
        peak.start()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        cut_batches(task, args, examples)
        model = build(task, shape, args)
        counting = Counting(collator_of(task, model, args, examples))
        trainer = trainer_of(task, model, args, examples, counting)
        trainer.add_callback(clock)
        trainer.train()
    history = [row for row in trainer.state.log_history if "loss" in row]
    head_was_whole = any(hasattr(part, "num_head_positions") for part in model.modules())
    assert head_was_whole == task.mode.startswith("none"), "the baseline must compute all logits"
    return Run(
        seconds=differences(clock.ends)[task.warmup - 1 :],
        processor_seconds=differences(clock.processor)[task.warmup - 1 :],
        losses=[row["loss"] for row in history],
        gradient_norms=[row["grad_norm"] for row in history],
        peak_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak.above_start(),
        samples_at_a_time=args.train_batch_size,
        positions=counting.positions // len(steps),
        padding=counting.padding // len(steps),
    )


if __name__ == "__main__":
    sys.stdout.write("\n" + json.dumps(asdict(measure(Task(**json.loads(sys.argv[1]))))) + "\n")
