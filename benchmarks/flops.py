"""How much of a GPU's arithmetic a training step uses (MFU), by the work that cannot be left out.

Per step, with N weights in the language model's layers, U unique tokens (a picture's prefix once), C pairs of
a token with one that it sees, T targets, V vocabulary, D width, L layers:

    forward  = 2 N U + 4 D L C + 2 D V T        language model, its attention, and the head at targets
             + I (2 N_vision P + 4 D_vision L_vision P^2 + 2 N_projector P)     I pictures of P patches
    step     = 3 x the language model's forward in full training; with LoRA 2 x, since no gradients of
               frozen weights are needed; the frozen vision tower 1 x, the trained projector 3 x

    MFU = step's FLOPs / (seconds x peak). Recomputed activations (gradient checkpointing), padding and
    repeated prefixes count as nothing, so they lower the MFU.
"""

from benchmarks.shapes import Shape
from benchmarks.workload import Counts

PEAK_TFLOPS = {"H100": 989.0, "H200": 989.0, "A100": 312.0, "L40S": 362.0, "4090": 165.0}
"""bf16, dense, as the makers state it."""


def peak_of(gpu: str | None) -> float | None:
    """FLOP/s of a card by a part of its name; None for a card that is not listed, or for no card."""
    return next((1e12 * tflops for name, tflops in PEAK_TFLOPS.items() if name in (gpu or "")), None)


def step_flops(shape: Shape, counts: Counts, *, num_patches: int, lora: bool) -> float:
    """FLOPs of one step as above."""
    text, vision = shape.text, shape.vision
    head = text.width // text.heads
    attention_weights = 2 * text.width * text.width + 2 * text.width * head * text.kv_heads
    layers = text.layers * (attention_weights + 3 * text.width * text.inner)
    language = 2 * layers * counts.unique_tokens + 4 * text.width * text.layers * counts.unique_pairs
    language += 2 * text.width * shape.vocabulary * counts.targets
    tower_weights = vision.layers * (4 * vision.width**2 + 2 * vision.width * vision.inner)
    tower = 2 * tower_weights * num_patches + 4 * vision.width * vision.layers * num_patches**2
    projector = 2 * num_patches * (vision.width * text.width + text.width**2)
    return (2 if lora else 3) * language + counts.pictures * (tower + 3 * projector)
