"""How far the packing modes differ from training sample by sample: the worst case over many random batches.

    python -m benchmarks.packing_exactness --seeds 50

The tolerances of tests/unit/train/test_packing.py are chosen from what this prints.
"""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.record import RESULTS, environment, table_of_rows, write_result

if TYPE_CHECKING:
    from torch import nn

MODES = ("packed", "shared")


def model_of(kind: str, seed: int) -> "nn.Module":
    """A tiny model for full training or LoRA (whose second matrix is not zero), or with checkpointing."""
    import torch

    from llava.model.lora import LoraSettings, add_lora
    from tests.tiny import tiny_model

    model = tiny_model(seed).train()
    if kind == "lora":
        model = add_lora(model, LoraSettings(rank=4, alpha=8, dropout=0.0)).train()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if "lora_B" in name:
                    weight.normal_(std=0.2)
    if kind == "checkpointing":
        model.gradient_checkpointing_enable()
    return model


def worst_of(kind: str, implementation: str, seeds: int) -> list[dict[str, object]]:
    """Largest differences to mode `none` over all seeds: of the loss, and of any weight's gradient."""
    from tests.tiny import mixed_examples
    from tests.unit.train.test_packing import loss_and_gradients

    worst = {mode: {"loss": 0.0, "gradient": 0.0} for mode in MODES}
    largest = 0.0
    for seed in range(seeds):
        examples, model = mixed_examples(seed), model_of(kind, seed)
        loss, gradients = loss_and_gradients(model, examples, "none")
        largest = max(largest, *(float(gradient.abs().max()) for gradient in gradients.values()))
        for mode in MODES:
            other = loss_and_gradients(model, examples, mode, implementation=implementation)
            row = worst[mode]
            row["loss"] = max(row["loss"], float(abs(loss - other[0])))
            for name, gradient in gradients.items():
                row["gradient"] = max(row["gradient"], float((gradient - other[1][name]).abs().max()))
    return [
        {"kind": kind, "attention": implementation, "mode": mode, "largest_gradient": largest, **row}
        for mode, row in worst.items()
    ]


def main() -> None:
    """Measure, print the table, write the result."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--seeds", type=int, default=50)
    args = options.parse_args()
    rows = [
        row
        for kind in ("full", "lora", "checkpointing")
        for implementation in ("sdpa", "eager")
        for row in worst_of(kind, implementation, args.seeds)
    ]
    record = environment(["benchmarks.packing_exactness", *sys.argv[1:]]) | {
        "seeds": args.seeds,
        "rows": rows,
    }
    sys.stdout.write(table_of_rows(record) + "\n")
    write_result(record, Path(RESULTS, "packing_exactness.json"))


if __name__ == "__main__":
    main()
