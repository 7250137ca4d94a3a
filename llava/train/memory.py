"""How much memory a training step takes, found by running the step without numbers.

The model's own code runs forwards and backwards on fake tensors, which have shapes and types but no memory,
and every storage is followed from its birth to its death. So the estimate holds for any language model of
transformers, any adapter, attention code and set of frozen weights, without a formula for each. What kernels
allocate inside themselves, fragmentation and the interpreter's own memory are not seen, and the step is that
of a CPU (attention as SDPA there, our chunked loss) whatever the device.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.fusion import embed_text
from llava.model.llava import LlavaForCausalLM

STATES = {"adamw": 2, "adam": 2, "sgd": 0, "lion": 1, "rmsprop": 1, "adagrad": 1, "adafactor": 0}
"""Numbers that an optimiser keeps for each weight (Adafactor: a row and a column of each matrix)."""


@dataclass(frozen=True)
class StepShape:
    """A micro-batch: rows of `length` tokens, pictures, targets; `features_kept`: the tower does not run."""

    rows: int
    length: int
    pictures: int
    targets: int
    features_kept: bool = False

    def __str__(self) -> str:
        return (
            f"{self.rows} x {self.length} tokens, {self.pictures} pictures"
            f"{' (features kept)' if self.features_kept else ''}, {self.targets} targets"
        )


@dataclass(frozen=True)
class Sharing:
    """How weights are shared among ranks: DeepSpeed's `stage`, 0 for none; `low_precision`: DeepSpeed keeps
    an fp32 copy of weights that train in 16 bits.
    """

    ranks: int = 1
    stage: int = 0
    low_precision: bool = False


@dataclass(frozen=True)
class StepSettings:
    """What else decides: the run's device, the type that it computes in (None: that of the weights), the
    optimiser's name, micro-batches of a step, and the ranks.
    """

    device: torch.device
    autocast: torch.dtype | None = None
    optimizer: str = "adamw_torch"
    accumulation: int = 1
    sharing: Sharing = Sharing()


@dataclass(frozen=True)
class Estimate:
    """Bytes on one device, by part. `total` is the peak of a step, which not all parts reach together."""

    weights: int
    gradients: int
    optimizer: int
    vision: int
    activations: int
    loss: int
    total: int

    def rows(self) -> list[tuple[str, int]]:
        """Parts by the names that the table shows."""
        return [
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("optimizer", self.optimizer),
            ("vision tower", self.vision),
            ("activations kept", self.activations),
            ("logits of a chunk", self.loss),
            ("peak of a step", self.total),
        ]


class StorageWatch(TorchDispatchMode):
    """Bytes of all storages that are alive; `peak` is the most since the last `mark`, `highest` of all."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: dict[int, int] = {}
        self.live = self.peak = self.highest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for value in tree_leaves(made):
            if isinstance(value, Tensor):
                self.follow(value)
        return made

    def follow(self, value: Tensor, *, counted: bool = True) -> None:
        """Count a tensor's storage, once, until it dies."""
        storage = value.untyped_storage()
        key = storage._cdata
        if key in self.sizes:
            return
        self.sizes[key] = storage.nbytes() if counted else 0
        self.live += self.sizes[key]
        self.peak, self.highest = max(self.peak, self.live), max(self.highest, self.live)
        weakref.finalize(storage, self.forget, key)

    def forget(self, key: int) -> None:
        """A storage died."""
        self.live -= self.sizes.pop(key, 0)

    def mark(self) -> int:
        """Bytes alive now; `peak` begins here again."""
        self.peak = self.live
        return self.live


def processes_here() -> int:
    """Processes of this run on this machine, which share its main memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def bytes_of(model: nn.Module, *, trainable: bool) -> int:
    """Bytes of a model's weights, or of those that train."""
    weights = [weight for weight in model.parameters() if weight.requires_grad or not trainable]
    return sum(weight.numel() * weight.element_size() for weight in weights)


def make_fake(model: nn.Module, mode: FakeTensorMode) -> None:
    """Replace a model's tensors (on `meta`) by fake ones; tied weights stay tied."""
    fakes: dict[int, Any] = {}

    def fake_of(value: Tensor) -> Any:
        if id(value) not in fakes:
            blank = torch.empty(value.shape, dtype=value.dtype)
            is_weight = isinstance(value, nn.Parameter)
            fakes[id(value)] = nn.Parameter(blank, value.requires_grad) if is_weight else blank
        return fakes[id(value)]

    with mode:
        for module in model.modules():
            for values in (module._parameters, module._buffers):
                values.update({name: fake_of(value) for name, value in values.items() if value is not None})


def estimate_step(
    trainable: nn.Module,
    shape: StepShape,
    settings: StepSettings,
) -> Estimate:
    """Bytes of a training step of a model on the device `meta`, which is of no other use afterwards.

    `trainable` may be wrapped by PEFT; gradient checkpointing is on where the model says so.
    """
    model: Any = trainable
    while not isinstance(model, LlavaForCausalLM):
        model = model.get_base_model()
    weights, gradients = bytes_of(model, trainable=False), bytes_of(model, trainable=True)
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    make_fake(trainable, mode)
    trainable.train()
    watch = StorageWatch()
    for value in [*model.parameters(), *model.buffers()]:
        watch.follow(value, counted=False)
    with mode, watch:
        for _ in range(min(settings.accumulation, 2)):
            parts = run_step(model, shape, watch, autocast=settings.autocast)
    numbers = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    states = optimizer_bytes(settings.optimizer, numbers, gradients)
    scratch = scratch_bytes(model, settings.optimizer, settings.device)
    step = max(watch.highest, gradients + scratch)
    return shared_out(
        Estimate(weights, gradients, states, *parts, total=weights + states + step),
        numbers,
        settings.sharing,
    )


def run_step(
    model: LlavaForCausalLM,
    shape: StepShape,
    watch: StorageWatch,
    *,
    autocast: torch.dtype | None,
) -> tuple[int, int, int]:
    """Forwards and backwards: bytes of the tower at work, kept for the way back, and of the loss."""
    context = nullcontext() if autocast is None else torch.autocast("cpu", autocast)
    start = watch.mark()
    with context, peaks_of(model.lm_head, watch) as heads:
        features = see_pictures(model, shape)
        vision = watch.peak - start
        loss = model(**fused_batch(model, shape, features)).loss
    kept = watch.live - start
    loss.backward()
    return vision, kept, max(heads, default=0)


@contextmanager
def peaks_of(module: nn.Module, watch: StorageWatch) -> Iterator[list[int]]:
    """Bytes that each call of a module takes at most, in a list that fills."""
    found: list[int] = []
    starts: list[int] = []
    handles = [
        module.register_forward_pre_hook(lambda *_: starts.append(watch.mark())),
        module.register_forward_hook(lambda *_: found.append(watch.peak - starts.pop())),
    ]
    yield found
    for handle in handles:
        handle.remove()


def see_pictures(model: LlavaForCausalLM, shape: StepShape) -> Tensor:
    """Features of the batch's pictures as the language model takes them, (I, P, D)."""
    config = model.config
    if shape.features_kept:
        dtype = next(model.model.vision_tower.parameters()).dtype
        size = (shape.pictures, config.num_patches, config.vision_width)
        return model.project(torch.empty(size, dtype=dtype))
    side = config.scales[-1] if config.scales else config.vision_config.image_size
    return model.encode_images(torch.empty(max(shape.pictures, 1), 3, side, side))


def fused_batch(model: LlavaForCausalLM, shape: StepShape, features: Tensor) -> dict[str, Tensor]:
    """What `forward` takes after fusion; fusing itself looks at numbers, which fake tensors lack."""
    size = (shape.rows, shape.length)
    ids = torch.full(size, IMAGE_TOKEN_INDEX)
    embeddings = embed_text(model.get_input_embeddings(), ids)
    places = (ids == IMAGE_TOKEN_INDEX).unsqueeze(-1)
    numbers = torch.zeros(size, dtype=torch.long)
    return {
        "inputs_embeds": embeddings.masked_scatter(places, features.flatten(0, 1).to(embeddings.dtype)),
        "position_ids": numbers,
        "group_ids": numbers,
        "branch_ids": numbers,
        "targets": torch.zeros(shape.targets, 3, dtype=torch.long),
    }


def optimizer_bytes(optimizer: str, numbers: int, gradients: int) -> int:
    """What an optimiser of this name keeps: as wide as the weights, or a byte per number in 8 bits."""
    name = optimizer.removeprefix("paged_")
    states = next((count for start, count in STATES.items() if name.startswith(start)), 2)
    return states * (numbers if "8bit" in name else gradients)


def scratch_bytes(model: nn.Module, optimizer: str, device: torch.device) -> int:
    """What AdamW computes beside its states in a step: a copy of all weights that train where it takes them
    together (CUDA), two of the largest where one after the other; nothing when it is fused.
    """
    if "fused" in optimizer or not optimizer.startswith("adam"):
        return 0
    sizes = [weight.numel() * weight.element_size() for weight in model.parameters() if weight.requires_grad]
    return sum(sizes) if device.type == "cuda" else 2 * max(sizes, default=0)


def shared_out(whole: Estimate, numbers: int, sharing: Sharing) -> Estimate:
    """The estimate for one rank of several: DDP keeps its gradients a second time, in buckets; DeepSpeed's
    stages 1, 2, 3 cut up the optimiser's states, gradients, weights.
    """
    ranks = sharing.ranks
    weights, gradients, optimizer = whole.weights, whole.gradients, whole.optimizer
    if sharing.stage == 0:
        buckets = gradients if ranks > 1 else 0
        return Estimate(**vars(whole) | {"gradients": gradients + buckets, "total": whole.total + buckets})
    if sharing.low_precision:
        optimizer = 12 * numbers  # two states and the copy, in fp32
    optimizer //= ranks
    gradients //= ranks if sharing.stage >= 2 else 1
    weights //= ranks if sharing.stage >= 3 else 1
    changes = {"weights": weights, "gradients": gradients, "optimizer": optimizer}
    saved = sum(getattr(whole, name) - value for name, value in changes.items())
    return Estimate(**vars(whole) | changes | {"total": whole.total - saved})


def table(columns: dict[str, Estimate]) -> str:
    """A row per part in GB, a column per estimate."""
    names = [name for name, _ in next(iter(columns.values())).rows()]
    lines = [f"{'memory of a step, GB':<22}" + "".join(f"{title:>26}" for title in columns)]
    for row, name in enumerate(names):
        sizes = [estimate.rows()[row][1] for estimate in columns.values()]
        lines.append(f"{name:<22}" + "".join(f"{size / 1e9:>26.3f}" for size in sizes))
    return "\n".join(lines)
