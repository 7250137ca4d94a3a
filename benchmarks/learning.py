"""Learning per second, not only samples per second: how soon are six new people recognised, by packing mode?

    python -m benchmarks.learning --seeds 0 1 2 --out benchmarks/results/learning.json

The mini world's default lesson by LoRA, with the quickstart's settings. Every few steps the model is asked
for names on pictures it has not seen. Each run is a process of its own with one thread. Finished runs are
kept in --work, the same command goes on.

Learning runs take long, and machines are shared: what a step takes is measured afterwards, in short runs of
all modes that take turns. Seconds in the table are steps times that pace.
"""

import argparse
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.record import as_table, environment, round_to, write_result

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
PACE_STEPS, PACE_WARM_UP = 40, 10
"""Steps of a run that measures how long one takes, and those of them that do not count."""


@dataclass(frozen=True)
class Point:
    """What the model knew after so many steps and samples."""

    step: int
    samples: int
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
        """Asks."""

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: object) -> None:
            if state.global_step % every == 0 or state.global_step == state.max_steps:
                samples = state.global_step * args.per_device_train_batch_size
                points.append(Point(state.global_step, samples, recognised(model)))

    recipe.run(flags_of(variant, seed, data, work / "checkpoint", rate), callbacks=[Watch()])
    return points


def pace_of(variant: str, seed: int, data: Path, *, rate: str) -> float:
    """Processor seconds of a step of one thread: the median of a short run."""
    import torch
    from transformers import TrainerCallback

    from llava.train import recipe

    torch.set_num_threads(1)
    times: list[float] = []

    class Clock(TrainerCallback):
        """Notes when steps end."""

        def on_step_end(self, *_: object, **__: object) -> None:
            times.append(time.process_time())

    with tempfile.TemporaryDirectory() as folder:
        flags = flags_of(variant, seed, data, Path(folder, "out"), rate)
        recipe.run([*flags, "--max_steps", str(PACE_STEPS)], callbacks=[Clock()])
    steps = [after - before for before, after in pairwise(times[PACE_WARM_UP:])]
    return statistics.median(steps)


def crossing(points: Sequence[Point]) -> int | None:
    """The step from which on the target is reached for good: all later points are at it too."""
    reached = None
    for point in reversed(points):
        if point.recognised < TARGET:
            break
        reached = point.step
    return reached


def table(runs: dict[str, dict[str, list[Point]]], paces: dict[str, list[float]]) -> list[dict[str, object]]:
    """Per variant the median over seeds; None where a seed never gets there."""
    rows = []
    for variant, by_seed in runs.items():
        pace = statistics.median(paces[variant])
        steps = [crossing(points) for points in by_seed.values()]
        there = [step for step in steps if step is not None]
        middle = statistics.median(there) if len(there) == len(steps) else None
        samples_per_step = next(iter(by_seed.values()))[0].samples / next(iter(by_seed.values()))[0].step
        last = statistics.median(points[-1].step for points in by_seed.values())
        rows.append(
            {
                "variant": variant,
                "seconds_per_step": round_to(pace),
                "samples_to_90": None if middle is None else round(middle * samples_per_step),
                "samples_each": [None if step is None else round(step * samples_per_step) for step in steps],
                "seconds_to_90": None if middle is None else round_to(middle * pace),
                "seconds_whole": round_to(last * pace),
                "recognised_at_end": [points[-1].recognised for points in by_seed.values()],
            }
        )
    return rows


def table_of(record: dict) -> str:
    """The result as people read it."""
    header = (
        "packing",
        "seconds per step",
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
        rows.append(
            (row["variant"], row["seconds_per_step"], samples, each, seconds, row["seconds_whole"], end)
        )
    return as_table(rows)


def learn(options: argparse.Namespace) -> dict[str, dict[str, list[Point]]]:
    """Every variant and seed that is not there yet, one after the other."""
    runs: dict[str, dict[str, list[Point]]] = {variant: {} for variant in options.variants}
    for seed in options.seeds:
        people = ["--seed", str(seed), "--identities", str(IDENTITIES), "--out", str(data_of(options, seed))]
        subprocess.run([sys.executable, "-m", "playground.mini_world.make_people", *people], check=True)
        for variant in options.variants:
            file = options.work / f"{variant}-seed{seed}" / "points.json"
            if not file.is_file():
                in_fresh_process(options, "--one", variant, seed)
            points = json.loads(file.read_text(encoding="utf-8"))
            runs[variant][str(seed)] = [
                Point(row["step"], row["samples"], row["recognised"]) for row in points
            ]
    return runs


def measure_paces(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds per step of every variant, in turn, as often as --rounds says."""
    paces: dict[str, list[float]] = {variant: [] for variant in options.variants}
    for _ in range(options.rounds):
        for variant, found in paces.items():
            found.append(
                float(in_fresh_process(options, "--pace", variant, options.seeds[0]).splitlines()[-1])
            )
    return paces


def in_fresh_process(options: argparse.Namespace, what: str, variant: str, seed: int) -> str:
    """`--one` or `--pace`; its output."""
    settings = ["--work", str(options.work), "--rate", options.rate, "--every", str(options.every)]
    command = [sys.executable, "-m", "benchmarks.learning", what, variant, "--seeds", str(seed), *settings]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def data_of(options: argparse.Namespace, seed: int) -> Path:
    """The lesson of a seed."""
    return options.work / f"data-seed{seed}"


def run_all(options: argparse.Namespace) -> None:
    """Learn, measure the paces, print the table, write the result."""
    runs = learn(options)
    paces = measure_paces(options)
    record = environment(["benchmarks.learning", *sys.argv[1:]]) | {
        "clock": "processor time of one thread",
        "rows": table(runs, paces),
        "seconds_per_step": paces,
        "runs": {
            variant: {seed: [asdict(point) for point in points] for seed, points in by_seed.items()}
            for variant, by_seed in runs.items()
        },
    }
    sys.stdout.write(table_of(record) + "\n")
    write_result(record, options.out)


def main() -> None:
    """One run (--one, --pace) or all of them."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = options.add_argument
    add("--seeds", type=int, nargs="+", default=[0, 1, 2])
    add("--variants", nargs="+", default=list(VARIANTS), choices=list(VARIANTS))
    add("--every", type=int, default=20, help="steps between two examinations")
    add("--rounds", type=int, default=3, help="short runs of each variant, for what a step takes")
    add("--rate", default="2e-3", help="learning rate of LoRA")
    add("--work", type=Path, default=Path("playground/mini_world/runs/learning"))
    add("--out", type=Path, default=Path("benchmarks/results/learning.json"))
    add("--one", choices=list(VARIANTS), help=argparse.SUPPRESS)
    add("--pace", choices=list(VARIANTS), help=argparse.SUPPRESS)
    args = options.parse_args()
    logging.basicConfig(level=logging.WARNING)
    seed = args.seeds[0]
    data = data_of(args, seed)
    if args.pace is not None:
        sys.stdout.write(f"\n{pace_of(args.pace, seed, data, rate=args.rate)}\n")
        return
    if args.one is None:
        run_all(args)
        return
    work = args.work / f"{args.one}-seed{seed}"
    points = one_run(args.one, seed, data, work, every=args.every, rate=args.rate)
    (work / "points.json").write_text(json.dumps([asdict(point) for point in points]), encoding="utf-8")


if __name__ == "__main__":
    main()
