"""Time of a training step in the three packing modes, side by side on this machine.

    python benchmarks/packing.py --model playground/mini_world/base --branches 1 4 8 --pictures 8

Rounds of the modes alternate, so that a busy machine slows all of them; the table gives medians and the ratio
to `none`.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from pathlib import Path

import torch

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.eval.run_record import commit, versions
from llava.model.builder import load_full
from llava.model.llava import LlavaForCausalLM
from llava.processing import Encoded
from llava.train.collator import PackingCollator
from llava.train.packing import MODES, Example

PROMPT, QUESTION, ANSWER = 35, 12, 4
"""Tokens before the picture, of a question, and of an answer."""


def make_examples(model: LlavaForCausalLM, *, pictures: int, branches: int) -> list[Example]:
    """`branches` samples about each picture, with random ids."""
    generator = torch.Generator().manual_seed(0)
    examples = []
    for picture in range(pictures):
        prefix = [1, *[5] * (PROMPT - 1), *[IMAGE_TOKEN_INDEX] * model.num_patches]
        for branch in range(branches):
            size = (QUESTION + ANSWER,)
            rest = torch.randint(3, model.config.text_config.vocab_size, size, generator=generator).tolist()
            labels = [IGNORE_INDEX] * (len(prefix) + QUESTION) + rest[QUESTION:]
            encoded = Encoded([*prefix, *rest], labels, len(prefix), 1)
            examples.append(Example(f"{picture}/{branch}", encoded, (str(picture),)))
    return examples


def step(model: LlavaForCausalLM, batch: dict[str, torch.Tensor], *, bf16: bool) -> float:
    """Seconds of one forward and backward pass."""
    device = next(model.parameters()).device
    batch = {name: value.to(device) for name, value in batch.items()}
    started = time.perf_counter()
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = model(**batch).loss
    loss.backward()
    model.zero_grad()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def main() -> None:
    """Measure and print JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, default=Path("playground/mini_world/base"))
    options.add_argument("--branches", type=int, nargs="+", default=[1, 4, 8])
    options.add_argument("--pictures", type=int, default=8)
    options.add_argument("--rounds", type=int, default=7)
    options.add_argument("--attention", default="eager")
    options.add_argument("--bf16", action=argparse.BooleanOptionalAction, default=True)
    args = options.parse_args()
    model = load_full(args.model, dtype=torch.float32).train()
    model.model.vision_tower.requires_grad_(False)
    model.model.language_model.set_attn_implementation(args.attention)
    size = model.config.vision_config.image_size
    rows = []
    for branches in args.branches:
        examples = make_examples(model, pictures=args.pictures, branches=branches)
        batches = {
            mode: PackingCollator(mode, lambda _: torch.zeros(3, size, size))(examples) for mode in MODES
        }
        times: dict[str, list[float]] = {mode: [] for mode in MODES}
        for number in range(args.rounds + 1):
            for mode in MODES:
                seconds = step(model, batches[mode], bf16=args.bf16)
                if number:  # the first round warms up
                    times[mode].append(seconds)
        medians = {mode: statistics.median(values) for mode, values in times.items()}
        rows.append(
            {
                "branches": branches,
                "seconds": {mode: round(value, 4) for mode, value in medians.items()},
                "times_faster": {mode: round(medians["none"] / value, 2) for mode, value in medians.items()},
            }
        )
    report = {
        "command": " ".join(["python", *sys.argv]),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "commit": commit(),
        "versions": versions(),
        "rows": rows,
    }
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
