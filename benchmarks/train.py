"""Training steps side by side: how many samples per second each way of training gets from this machine.

    python -m benchmarks.train --shape mini --qa-per-image 1 4 10 --method lora
    python -m benchmarks.train --shape llava-1.5-7b --qa-per-image 10 --mode none,shared,hf --lora-r 128

    none     one sample per row, padded, gradient checkpointing, logits at all positions, the vision tower
             for every sample: as the original trains
    packed   our rows of several samples        shared   our rows with each picture's prefix once
    kept     shared, with features of all pictures at hand, as from the second epoch on
    checkpointed                            kept, with gradient checkpointing: the least memory
    hf       transformers' LlavaForConditionalGeneration, its Trainer and PEFT, padded
    merged   all questions of a picture in one conversation: it learns something else, shown for speed only
    none-cut, hf-cut                        the baselines, computing as few samples at a time as ours do

Every run is a process of its own; the modes take turns, so that a busy machine slows all of them. Before
speed counts, losses and gradient norms of all modes but `merged` must agree on the same samples and weights.
"""

import json
import os
import statistics
import subprocess
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from benchmarks.flops import peak_of, step_flops
from benchmarks.record import MIB, RESULTS, as_table, environment, median_of, round_to, write_result
from benchmarks.shapes import SHAPES
from benchmarks.workload import Counts, count, workload_of
from llava.command_line import CommandParser
from llava.errors import UsageError, exit_on_usage_error

MODES = ("none", "packed", "shared", "kept", "checkpointed", "hf", "merged", "none-cut", "hf-cut")
USUAL_MODES = MODES[:7]
SAME_RTOL = {"loss": 1e-5, "gradient_norm": 1e-4}
"""fp32, relative, over mini and mid: worst seen 2.7e-7 and 2.4e-7."""
SAME_RTOL_BF16 = {"loss": 2e-3, "gradient_norm": 5e-2}
"""bf16 rounds to 4e-3 relative; a bound from that, to be replaced by what a GPU shows."""
SAMPLES = {"mini": 40, "mid": 10}
OTHER_SAMPLES = 20
"""Samples per step, about: whole pictures are taken."""

Run = dict[str, object]


def parser() -> CommandParser:
    """The command line."""
    options = CommandParser(__doc__.splitlines()[0])
    add = options.add_argument
    add("--shape", choices=tuple(SHAPES), default="mini", help="size of the model")
    add("--qa-per-image", type=int, nargs="+", default=[1, 4, 10], help="questions about each picture")
    add("--mode", default=",".join(USUAL_MODES), help="ways of training, between commas")
    add("--method", choices=("lora", "full"), default="lora", help="what is trained, beside the projector")
    add("--answer-tokens", type=int, default=15, help="mean length of an answer (150: long ones)")
    add("--question-tokens", type=int, default=45, help="mean length of a question")
    add("--samples", type=int, default=None, help="samples per step, about: whole pictures are taken")
    add("--steps", type=int, default=3, help="measured steps of a run")
    add("--warmup", type=int, default=1, help="steps before them that do not count")
    add("--runs", type=int, default=3, help="runs of each mode; the table has their median and spread")
    add("--lora-r", type=int, default=64, help="rank")
    add("--bf16", choices=("auto", "true", "false"), default="auto", help="auto: on a GPU")
    add("--threads", type=int, default=os.cpu_count(), help="of the processor")
    add("--name", default=None, help="of the result file; default: train-SHAPE-METHOD")
    return options


def check(options: Namespace) -> list[str]:
    """The modes; `UsageError` for values that cannot work."""
    modes = options.mode.split(",")
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown:
        raise UsageError(f"--mode has {', '.join(map(repr, unknown))}; known: {', '.join(MODES)}.")
    for name in ("steps", "warmup", "runs", "question_tokens", "answer_tokens", "lora_r"):
        if getattr(options, name) < 1:
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} is {getattr(options, name)}; it must be at least 1.")
    if min(options.qa_per_image) < 1:
        raise UsageError("--qa-per-image has a number below 1; give numbers of questions, such as 1 4 10.")
    return modes


def task_of(options: Namespace, mode: str, questions: int, *, bf16: bool) -> dict[str, object]:
    """The words of `benchmarks.training_run.Task`."""
    samples = options.samples or SAMPLES.get(options.shape, OTHER_SAMPLES)
    return {
        "shape": options.shape,
        "mode": mode,
        "method": options.method,
        "pictures": max(1, round(samples / questions)),
        "questions": questions,
        "question_tokens": options.question_tokens,
        "answer_tokens": options.answer_tokens,
        "steps": options.steps,
        "warmup": options.warmup,
        "bf16": bf16,
        "lora_r": options.lora_r,
        "threads": options.threads,
    }


def start(task: dict[str, object]) -> Run:
    """Run one task in a process of its own; `UsageError` with its last words when it fails."""
    command = [sys.executable, "-m", "benchmarks.training_run", json.dumps(task)]
    environment = os.environ | {"OMP_NUM_THREADS": str(task["threads"])}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise UsageError(f"{task['mode']} failed: {done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.splitlines()[-1])


def worst_difference(runs: dict[str, list[Run]], name: str) -> float:
    """The largest relative difference of a number of the first run's steps between two modes."""
    series = [found[0][name] for mode, found in runs.items() if mode != "merged"]
    worst = 0.0
    for values in zip(*series, strict=True):
        difference = (max(values) - min(values)) / abs(statistics.median(values))
        if not difference <= worst:  # also where it is not a number
            worst = difference
    return worst


def compare(runs: dict[str, list[Run]], *, bf16: bool) -> dict[str, float]:
    """The worst differences between the modes; `UsageError` where they do not train alike."""
    allowed = SAME_RTOL_BF16 if bf16 else SAME_RTOL
    found = {
        "loss": worst_difference(runs, "losses"),
        "gradient_norm": worst_difference(runs, "gradient_norms"),
    }
    for name, value in found.items():
        if not value <= allowed[name]:
            raise UsageError(
                f"the modes do not train alike: {name} differs by {value:.2g} relative, allowed is "
                f"{allowed[name]:.2g}; speed is not compared."
            )
    return {name: float(f"{value:.2g}") for name, value in found.items()}


def summary(found: list[Run], counts: Counts, *, flops: float, peak: float | None) -> dict[str, object]:
    """What one mode did, over its runs; `flops` are those of a step, `peak` the card's per second."""
    seconds = [statistics.median(run["seconds"]) for run in found]
    processor = statistics.median(statistics.median(run["processor_seconds"]) for run in found)
    row = {
        "samples_per_second": median_of([counts.samples / value for value in seconds]),
        "target_tokens_per_second": median_of([counts.targets / value for value in seconds]),
        "unique_tokens_per_second": median_of([counts.unique_tokens / value for value in seconds]),
        "processor_seconds_per_step": round_to(processor),
        "padding_share": round(found[0]["padding"] / found[0]["positions"], 3),
        "positions": found[0]["positions"],
        "samples_at_a_time": found[0]["samples_at_a_time"],
        "peak_mib": median_of([run["peak_bytes"] / MIB for run in found]),
        "peak_mib_per_sample": round_to(
            statistics.median(run["peak_bytes"] for run in found) / MIB / counts.samples
        ),
    }
    if peak:
        row["mfu"] = median_of([flops / value / peak for value in seconds])
    return row


def measure(options: Namespace, modes: Sequence[str], questions: int, *, bf16: bool, gpu: str | None) -> dict:
    """All modes at one number of questions per picture."""
    runs: dict[str, list[Run]] = {mode: [] for mode in modes}
    for number in range(options.runs):
        order = [*modes[number % len(modes) :], *modes[: number % len(modes)]]
        for mode in order:
            sys.stderr.write(f"{questions} questions per picture, run {number + 1}, {mode}\n")
            runs[mode].append(start(task_of(options, mode, questions, bf16=bf16)))
    shape = SHAPES[options.shape]
    work = workload_of(shape, task_of(options, modes[0], questions, bf16=bf16))
    counts = count(work.step(options.warmup))
    flops = step_flops(shape, counts, num_patches=shape.num_patches, lora=options.method == "lora")
    rows = {mode: summary(found, counts, flops=flops, peak=peak_of(gpu)) for mode, found in runs.items()}
    for row in rows.values():
        for baseline in ("none", "hf"):
            if baseline in runs:
                own = row["samples_per_second"]["median"]
                row[f"ratio_to_{baseline}"] = round(own / rows[baseline]["samples_per_second"]["median"], 2)
                effort = rows[baseline]["processor_seconds_per_step"] / row["processor_seconds_per_step"]
                row[f"processor_ratio_to_{baseline}"] = round(effort, 2)
    return {
        "qa_per_image": questions,
        "pictures_per_step": counts.pictures,
        "samples_per_step": counts.samples,
        "step_teraflops": round_to(flops / 1e12),
        "largest_relative_difference": compare(runs, bf16=bf16),
        "modes": rows,
        "runs": runs,
    }


HEADER = (
    "questions",
    "mode",
    "samples/s",
    "spread",
    "targets/s",
    "unique tokens/s",
    "padding",
    "at a time",
    "peak MiB",
    "MiB/sample",
    "MFU",
    "x none",
    "x hf",
    "CPU x none",
    "CPU x hf",
)


def table(record: dict) -> str:
    """The result as people read it."""
    rows: list[Sequence[object]] = [HEADER]
    for case in record["cases"]:
        for mode, row in case["modes"].items():
            rows.append(
                (
                    case["qa_per_image"],
                    f"{mode} (speed only)" if mode == "merged" else mode,
                    row["samples_per_second"]["median"],
                    f"{row['samples_per_second']['spread']:.0%}",
                    row["target_tokens_per_second"]["median"],
                    row["unique_tokens_per_second"]["median"],
                    f"{row['padding_share']:.0%}",
                    row.get("samples_at_a_time", "all"),
                    round(row["peak_mib"]["median"]),
                    row["peak_mib_per_sample"],
                    f"{row['mfu']['median']:.0%}" if "mfu" in row else "not measured",
                    row.get("ratio_to_none", ""),
                    row.get("ratio_to_hf", ""),
                    row.get("processor_ratio_to_none", ""),
                    row.get("processor_ratio_to_hf", ""),
                )
            )
    return as_table(rows)


@exit_on_usage_error
def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the result."""
    options = parser().parse(argv)
    modes = check(options)
    words = list(sys.argv[1:] if argv is None else argv)
    record = environment(["benchmarks.train", *words])
    gpu = record["machine"]["gpu"]
    bf16 = options.bf16 == "true" or (options.bf16 == "auto" and gpu is not None)
    record |= {
        "shape": options.shape,
        "method": options.method,
        "question_tokens": options.question_tokens,
        "answer_tokens": options.answer_tokens,
        "bf16": bf16,
        "threads": options.threads,
        "cases": [
            measure(options, modes, questions, bf16=bf16, gpu=gpu) for questions in options.qa_per_image
        ],
    }
    sys.stdout.write(table(record) + "\n")
    name = options.name or f"train-{options.shape}-{options.method}"
    write_result(record, Path(RESULTS, f"{name}.json"))


if __name__ == "__main__":
    main()
