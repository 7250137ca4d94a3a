"""Learning per second, not only samples per second: how soon are six new people recognised, by packing mode?

    python -m benchmarks.learning --seeds 0 1 2 --out benchmarks/results/learning.json

The mini world's default lesson by LoRA, with the quickstart's settings. Every few steps the clock stops and
the model is asked for names on pictures it has not seen. Each run is a process of its own with one thread;
its clock counts the processor's time, so that other programs on the machine matter little. Finished runs are
kept in --work, the same command goes on.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.record import as_table, environment, write_result

BASE = "playground/mini_world/base"
ALL = 1_000_000
"""Branches per picture that no lesson has: all questions about a picture are drawn together."""
VARIANTS = {
    "none": ("none", 1),
    "packed": ("packed", 1),
    "shared-2": ("shared", 2),
    "shared-4": ("shared", 4),
    "shared-8": ("shared", 8),
    "shared-all": ("shared", ALL),
}
"""Packing mode and most branches of a picture; 1 is the random order that the original trains in."""
TARGET = 0.9
IDENTITIES = 6


@dataclass(frozen=True)
class Point:
    """What the model knew after so many samples and seconds of training."""

    step: int
    samples: int
    seconds: float
    recognised: float


def flags_of(variant: str, seed: int, data: Path, out: Path, rate: str) -> list[str]:
    """The training command of one run: the quickstart's."""
    packing, branches = VARIANTS[variant]
    values = {
        "model_name_or_path": BASE,
        "version": "v1",
        "data_path": str(data / "train.json"),
        "image_folder": str(data / "images"),
        "output_dir": str(out),
        "image_aspect_ratio": "pad",
        "num_train_epochs": "4",
        "per_device_train_batch_size": "64",
        "learning_rate": rate,
        "mm_projector_lr": str(float(rate) / 10),
        "weight_decay": "0.",
        "warmup_ratio": "0.1",
        "lr_scheduler_type": "cosine",
        "model_max_length": "512",
        "packing": packing,
        "max_branches": str(branches),
        "save_strategy": "no",
        "logging_steps": "20",
        "seed": str(seed),
        "bf16": "True",
        "gradient_checkpointing": "False",
        "dataloader_num_workers": "0",
        "report_to": "none",
        "lora_enable": "True",
        "lora_r": "64",
        "lora_alpha": "128",
        "lora_dropout": "0",
        "disable_tqdm": "True",
    }
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def asker(data: Path) -> Any:
    """A function: a model in training to the share of unseen pictures whose person it names."""
    import torch

    from llava.conversation import TEMPLATES
    from llava.eval.metrics.exact import matches
    from llava.eval.questions import read_questions
    from llava.processing import load_image, load_image_processor, process_image, tokenizer_image_token
    from llava.rendering import render
    from llava.tokenizer import load_tokenizer

    asked = read_questions(data / "questions" / "personal.jsonl", data / "images")
    asked = [question for question in asked if question.category == "name"]
    rows = (json.loads(line) for line in (data / "truth.jsonl").read_text(encoding="utf-8").splitlines())
    truth = {row["question_id"]: row["answer"] for row in rows}
    tokenizer, processor = load_tokenizer(Path(BASE)), load_image_processor(BASE)
    pixels = torch.stack(
        [process_image(load_image(str(q.image_path)), processor, image_aspect_ratio="pad") for q in asked]
    )
    prompts = [render(TEMPLATES["v1"], [("human", f"<image>\n{q.text}"), ("gpt", None)]).text for q in asked]
    ids = [torch.tensor(tokenizer_image_token(prompt, tokenizer)) for prompt in prompts]
    padded = torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=0)
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)

    def recognised(model: Any) -> float:
        model = model.get_base_model() if hasattr(model, "get_base_model") else model
        was_training = model.training
        model.eval()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            new = model.generate(
                padded,
                images=pixels,
                attention_mask=mask,
                do_sample=False,
                max_new_tokens=12,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id or 0,
            )
        model.train(was_training)
        answers = tokenizer.batch_decode(new, skip_special_tokens=True)
        right = [matches(answer, truth[q.question_id]) for q, answer in zip(asked, answers, strict=True)]
        return sum(right) / len(right)

    return recognised


def one_run(variant: str, seed: int, data: Path, work: Path, *, every: int, rate: str) -> list[Point]:
    """Train once and ask every so many steps."""
    import torch
    from transformers import TrainerCallback

    from llava.train import recipe

    torch.set_num_threads(1)
    recognised = asker(data)
    points: list[Point] = []

    class Watch(TrainerCallback):
        """Stops the clock and asks."""

        def __init__(self) -> None:
            self.seconds, self.started = 0.0, 0.0

        def on_train_begin(self, *_: object, **__: object) -> None:
            self.started = time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: object) -> None:
            if state.global_step % every and state.global_step != state.max_steps:
                return
            self.seconds += time.process_time() - self.started
            samples = state.global_step * args.per_device_train_batch_size
            points.append(Point(state.global_step, samples, round(self.seconds, 2), recognised(model)))
            self.started = time.process_time()

    recipe.run(flags_of(variant, seed, data, work / "checkpoint", rate), callbacks=[Watch()])
    return points


def crossing(points: Sequence[Point], what: str) -> float | None:
    """Seconds or samples until the target is reached for good: all later points are at it too."""
    reached = None
    for point in reversed(points):
        if point.recognised < TARGET:
            break
        reached = getattr(point, what)
    return reached


def table(runs: dict[str, dict[str, list[Point]]]) -> list[dict[str, object]]:
    """Per variant the median over seeds; None where a seed never gets there."""
    rows = []
    for variant, by_seed in runs.items():
        row: dict[str, object] = {"variant": variant, "seeds": len(by_seed)}
        for what in ("seconds", "samples"):
            found = [crossing(points, what) for points in by_seed.values()]
            there = [value for value in found if value is not None]
            row[f"{what}_to_90"] = statistics.median(there) if len(there) == len(found) else None
            row[f"{what}_each"] = found
        row["seconds_whole"] = statistics.median(points[-1].seconds for points in by_seed.values())
        row["recognised_at_end"] = [points[-1].recognised for points in by_seed.values()]
        rows.append(row)
    return rows


def table_of(record: dict) -> str:
    """The result as people read it."""
    header = (
        "packing",
        "samples to 90 %",
        "each seed",
        "seconds to 90 %",
        "seconds in all",
        "recognised at end, %",
    )
    rows: list[Sequence[object]] = [header]
    for row in record["rows"]:
        each = ", ".join("never" if value is None else f"{value:,}" for value in row["samples_each"])
        end = ", ".join(f"{100 * value:.0f}" for value in row["recognised_at_end"])
        there = row["samples_to_90"] is not None
        samples, seconds = (row[f"{what}_to_90"] if there else "not all" for what in ("samples", "seconds"))
        rows.append((row["variant"], samples, each, seconds, row["seconds_whole"], end))
    return as_table(rows)


def run_all(options: argparse.Namespace) -> None:
    """Every variant and seed that is not there yet, one after the other; then the table."""
    runs: dict[str, dict[str, list[Point]]] = {variant: {} for variant in options.variants}
    for seed in options.seeds:
        data = options.work / f"data-seed{seed}"
        people = ["--seed", str(seed), "--identities", str(IDENTITIES), "--out", str(data)]
        subprocess.run([sys.executable, "-m", "playground.mini_world.make_people", *people], check=True)
        for variant in options.variants:
            work = options.work / f"{variant}-seed{seed}"
            file = work / "points.json"
            if not file.is_file():
                command = (
                    f"-m benchmarks.learning --one {variant} --seeds {seed} --every {options.every}".split()
                )
                settings = ["--work", str(options.work), "--rate", options.rate]
                subprocess.run([sys.executable, *command, *settings], check=True)
            runs[variant][str(seed)] = [Point(**row) for row in json.loads(file.read_text(encoding="utf-8"))]
    rows = table(runs)
    report = {
        **environment(["benchmarks.learning", *sys.argv[1:]]),
        "clock": "processor time of one thread, training only",
        "rows": rows,
        "runs": {
            variant: {seed: [asdict(point) for point in points] for seed, points in by_seed.items()}
            for variant, by_seed in runs.items()
        },
    }
    sys.stdout.write(table_of(report) + "\n")
    write_result(report, options.out)


def main() -> None:
    """One run (--one) or all of them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = options.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    add("--every", type=int, default=20, help="steps between two examinations")
    add("--rate", default="2e-3", help="learning rate of LoRA")
    add("--work", type=Path, default=Path("playground/mini_world/runs/learning"))
    add("--out", type=Path, default=Path("benchmarks/results/learning.json"))
    add("--one", choices=list(VARIANTS), help=argparse.SUPPRESS)
    args = options.parse_args()
    logging.basicConfig(level=logging.WARNING)
    if args.one is None:
        run_all(args)
        return
    seed = args.seeds[0]
    work = args.work / f"{args.one}-seed{seed}"
    data = args.work / f"data-seed{seed}"
    points = one_run(args.one, seed, data, work, every=args.every, rate=args.rate)
    (work / "points.json").write_text(json.dumps([asdict(point) for point in points]), encoding="utf-8")


if __name__ == "__main__":
    main()
