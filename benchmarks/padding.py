"""Share of padding in packed batches of LLaVA-like lengths, by row length, batch size and kind of answer.

    python -m benchmarks.padding --pack-tokens 0 2048 4096 8192 --batch-sizes 16 64

Groups are as the sampler gives them: a prefix of 611 tokens (35 of text and 576 of a picture) with one to
eight questions of about 45 tokens, answers of about 15 or 150, or both at random. 0 stands for the default,
as few tokens per row as keep padding below 3 %. Pure planning, no model: the shares depend on the seed only.
"""

import argparse
import random
import sys
import time
from pathlib import Path

from benchmarks.record import RESULTS, environment, table_of_rows, write_result
from llava.train.packing import padded_tokens, plan_rows, plan_short_rows

PREFIX, QUESTION, MAX_BRANCHES = 611, 45, 8
ANSWERS = {"short": (15,), "long": (150,), "mixed": (15, 150)}


def group_lengths(batch_size: int, answers: tuple[int, ...], rng: random.Random) -> list[int]:
    """Tokens of the groups of one batch of `batch_size` samples."""
    lengths, left = [], batch_size
    while left:
        branches = min(left, rng.choice([1, 1, 2, 4, MAX_BRANCHES]))
        left -= branches
        length = PREFIX
        for _ in range(branches):
            length += max(4, int(rng.gauss(QUESTION, 12)))
            answer = rng.choice(answers)
            length += max(2, int(rng.gauss(answer, answer / 4)))
        lengths.append(length)
    return lengths


def measure(batch_size: int, kind: str, pack_tokens: int, batches: int) -> dict[str, object]:
    """Padding over all batches as a share of their tokens, the mean number of rows, and time to plan one."""
    rng = random.Random(0)
    tokens = padded = num_rows = 0
    worst = 0.0
    began = time.perf_counter()
    for _ in range(batches):
        lengths = group_lengths(batch_size, ANSWERS[kind], rng)
        rows = plan_rows(lengths, capacity=pack_tokens) if pack_tokens else plan_short_rows(lengths)
        tokens, padded = tokens + sum(lengths), padded + padded_tokens(lengths, rows)
        worst = max(worst, 1 - sum(lengths) / padded_tokens(lengths, rows))
        num_rows += len(rows)
    return {
        "answers": kind,
        "batch_size": batch_size,
        "pack_tokens": pack_tokens or "default",
        "padding_percent": round(100 * (1 - tokens / padded), 2),
        "worst_batch_percent": round(100 * worst, 2),
        "rows": round(num_rows / batches, 1),
        "tokens_per_row": round(padded / num_rows),
        "milliseconds": round(1000 * (time.perf_counter() - began) / batches, 2),
    }


def main() -> None:
    """Measure, print the table, write the result."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pack-tokens", type=int, nargs="+", default=[0, 2048, 4096, 8192])
    options.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64])
    options.add_argument("--batches", type=int, default=200)
    args = options.parse_args()
    record = environment(["benchmarks.padding", *sys.argv[1:]])
    record["rows"] = [
        measure(batch_size, kind, pack_tokens, args.batches)
        for kind in ANSWERS
        for batch_size in args.batch_sizes
        for pack_tokens in args.pack_tokens
    ]
    sys.stdout.write(table_of_rows(record) + "\n")
    write_result(record, Path(RESULTS, "padding.json"))


if __name__ == "__main__":
    main()
