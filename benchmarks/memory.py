"""The estimate of a step's memory beside what a real step takes, in a fresh process each; CPU only.

    python -m benchmarks.memory --kinds full lora --checkpointing off on --rows 2 --length 1200

Measured is the growth of the process's resident memory: its highest mark during one step (forwards,
backwards, AdamW; the second one, so that the optimiser's states are there) less what it was before the model
was built. Freed memory is returned to the system at once (MALLOC_MMAP_THRESHOLD_), so that the mark is not
that of an earlier moment. Linux only.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import CLIPVisionConfig, LlamaConfig

from benchmarks.record import RESULTS, environment, resident_bytes, table_of_rows, write_result
from llava.constants import IMAGE_TOKEN_INDEX
from llava.model.config import LlavaConfig
from llava.model.llava import LlavaForCausalLM
from llava.model.lora import LoraSettings, add_lora
from llava.train.memory import StepSettings, StepShape, estimate_step
from llava.train.step_memory import enable_checkpointing

RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}


def config_of(width: int, layers: int) -> LlavaConfig:
    """A middle-sized LLaVA with 576 tokens per picture and a vocabulary of 32,000."""
    text = LlamaConfig(
        hidden_size=width,
        intermediate_size=width * 11 // 4,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        vocab_size=32_000,
        tie_word_embeddings=False,
    )
    vision = CLIPVisionConfig(
        hidden_size=256,
        intermediate_size=1024,
        num_hidden_layers=6,
        num_attention_heads=4,
        image_size=336,
        patch_size=14,
    )
    return LlavaConfig(text_config=text, vision_config=vision)


def build(config: LlavaConfig, kind: str, *, checkpointing: bool, bf16: bool, device: str) -> nn.Module:
    """A model with a frozen tower, trained in full or by LoRA, as the recipe prepares it."""
    with torch.device(device):
        model = LlavaForCausalLM._from_config(config, dtype=torch.float32)
        model.model.vision_tower.requires_grad_(False)
        model.model.language_model.set_attn_implementation("sdpa")
        settings = LoraSettings(rank=64, alpha=128, dropout=0.05)
        trainable = add_lora(model, settings) if kind == "lora" else model
        if bf16:
            for weight in trainable.parameters():
                if not weight.requires_grad:
                    weight.data = weight.data.to(torch.bfloat16)
    if checkpointing:
        enable_checkpointing(model)
    return trainable.train()


def batch_of(config: LlavaConfig, shape: StepShape) -> dict[str, Tensor]:
    """A batch of a shape, one picture per row."""
    assert shape.pictures == shape.rows
    ids = torch.full((shape.rows, shape.length), 5)
    ids[:, 10 : 10 + config.num_patches] = IMAGE_TOKEN_INDEX
    numbers = torch.arange(shape.targets)
    side = config.vision_config.image_size
    groups = torch.zeros_like(ids)
    return {
        "input_ids": ids,
        "position_ids": torch.arange(shape.length).expand(shape.rows, -1),
        "group_ids": groups,
        "branch_ids": groups,
        "targets": torch.stack(
            [numbers % shape.rows, shape.length - 1 - numbers // shape.rows, numbers], dim=1
        ),
        "pixel_values": torch.randn(shape.pictures, 3, side, side),
    }


def measured_bytes(model: nn.Module, batch: dict[str, Tensor], *, bf16: bool) -> int:
    """The high mark of the second of two steps."""
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad])
    for number in range(2):
        if number:
            gc.collect()
            Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return resident_bytes("VmHWM")


def compare(kind: str, *, checkpointing: bool, bf16: bool, shape: StepShape, config: LlavaConfig) -> dict:
    """Both figures of one case, in this process."""
    options = {"checkpointing": checkpointing, "bf16": bf16}
    estimate = estimate_step(
        build(config, kind, **options, device="meta"),
        shape,
        StepSettings(torch.device("cpu"), autocast=torch.bfloat16 if bf16 else None),
    )
    gc.collect()
    before = resident_bytes("VmRSS")
    model = build(config, kind, **options, device="cpu")
    measured = measured_bytes(model, batch_of(config, shape), bf16=bf16) - before
    return {
        "kind": kind,
        **options,
        "shape": str(shape),
        "estimate_mb": round(estimate.total / 1e6, 1),
        "measured_mb": round(measured / 1e6, 1),
        "estimate_over_measured": round(estimate.total / measured, 3),
    }


def compare_in_fresh_process(*flags: str) -> dict:
    """`compare` where memory is returned at once and nothing was allocated before."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--one", *flags],
        env={**os.environ, **RETURN_MEMORY},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-3000:])
    return json.loads(done.stdout)


def main() -> None:
    """Measure, print the table, write the result."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kinds", nargs="+", default=["full", "lora"], choices=("full", "lora"))
    options.add_argument("--checkpointing", nargs="+", default=["off", "on"], choices=("off", "on"))
    options.add_argument("--types", nargs="+", default=["fp32"], choices=("fp32", "bf16"))
    options.add_argument("--width", type=int, default=512)
    options.add_argument("--layers", type=int, default=8)
    options.add_argument("--rows", type=int, default=2)
    options.add_argument("--length", type=int, default=1200)
    options.add_argument("--targets", type=int, default=300)
    options.add_argument("--one", action="store_true", help="one case, in this process")
    args = options.parse_args()
    shape = StepShape(args.rows, args.length, pictures=args.rows, targets=args.targets)
    cases = list(product(args.kinds, args.checkpointing, args.types))
    if args.one:
        kind, checkpointing, numbers = cases[0]
        config = config_of(args.width, args.layers)
        switches = {"checkpointing": checkpointing == "on", "bf16": numbers == "bf16"}
        found = compare(kind, **switches, shape=shape, config=config)
        sys.stdout.write(json.dumps(found) + "\n")
        return
    sizes = [
        word
        for name in ("width", "layers", "rows", "length", "targets")
        for word in (f"--{name}", str(getattr(args, name)))
    ]
    rows = [
        compare_in_fresh_process(
            "--kinds", kind, "--checkpointing", checkpointing, "--types", numbers, *sizes
        )
        for kind, checkpointing, numbers in cases
    ]
    record = environment(["benchmarks.memory", *sys.argv[1:]]) | {"rows": rows}
    sys.stdout.write(table_of_rows(record) + "\n")
    write_result(record, Path(RESULTS, "memory.json"))


if __name__ == "__main__":
    main()
