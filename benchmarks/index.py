"""Start of a training on a file of the size of LLaVA's 665k mix: seconds and memory, first and second time.

    python -m benchmarks.index --rows 665000

Each start is a process of its own that reads the samples, checks their lengths and plans an epoch, as the
training recipe does before its first step. Opening every picture is timed by itself, with `--pictures`. The
file is drawn from a seed: most rows show one of `rows` / 1.9 pictures and have one to twenty questions.
"""

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.record import RESULTS, as_table, environment, write_result
from llava.conversation import training_template
from llava.tokenizer import load_tokenizer
from llava.train.conversations import ConversationDataset, Encoding, check_long_samples
from llava.train.picture_check import check_pictures
from llava.train.sampler import PictureOrder
from llava.train.samples import read_samples

BASE = Path("playground/mini_world/base")
ROWS_PER_PICTURE = 1.9
LINKS = 30_000
"""Names of one picture file; file systems have a limit."""
WORDS = [
    "the",
    "a",
    "of",
    "red",
    "street",
    "man",
    "two",
    "is",
    "what",
    "holding",
    "near",
    "table",
    "left",
    "sign",
]


def write_pictures(folder: Path, count: int) -> None:
    """`count` names of a few small pictures, in folders of a thousand."""
    for number in range(count):
        name = folder / f"{number // 1000:04d}" / f"{number:012d}.jpg"
        if number % LINKS == 0:
            source = folder / f"source_{number}.jpg"
            Image.new("RGB", (64, 48), (number % 255, 90, 30)).save(source)
        if number % 1000 == 0:
            name.parent.mkdir()
        os.link(source, name)


def write_rows(file: Path, rows: int, pictures: int, rng: random.Random) -> None:
    """Conversations of the mix's kinds, from one long answer to many short ones; some rows are text only."""

    def text(words: int) -> str:
        return " ".join(rng.choices(WORDS, k=words))

    with file.open("w", encoding="utf-8") as out:
        for number in range(rows):
            questions, answer_words = rng.choice([(1, 150), (3, 50), (4, 45), (6, 20), (14, 3), (20, 3)])
            row: dict[str, object] = {"id": f"{number:012d}"}
            mark = ""
            if rng.random() > 0.06:
                picture = rng.randrange(pictures)
                row["image"] = f"{picture // 1000:04d}/{picture:012d}.jpg"
                mark = "<image>\n"
            turns = []
            for turn in range(questions):
                question = f"{mark if turn == 0 else ''}{text(10)}?"
                turns.append({"from": "human", "value": question})
                turns.append({"from": "gpt", "value": text(answer_words)})
            row["conversations"] = turns
            out.write("[\n" if number == 0 else ",\n")
            out.write(json.dumps(row))
        out.write("\n]\n")


def start(folder: Path, *, pictures: bool) -> dict[str, object]:
    """Seconds of each part of a start, on the clock and of this process, and the most memory that it used."""
    seconds: dict[str, float] = {}
    cpu_seconds: dict[str, float] = {}

    def timed(name: str, action: Callable[[], Any]) -> Any:
        began, used = time.perf_counter(), time.process_time()
        result = action()
        seconds[name] = round(time.perf_counter() - began, 2)
        cpu_seconds[name] = round(time.process_time() - used, 2)
        return result

    imported = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    samples = timed("read_samples", lambda: read_samples(folder / "rows.json", folder / "images"))
    if pictures:
        timed("check_pictures", lambda: check_pictures(samples, "header"))
    encoding = Encoding(training_template("v1"), load_tokenizer(BASE), 576, 2048)
    timed("check_long_samples", lambda: check_long_samples(ConversationDataset(samples, encoding)))
    keys = [None if group < 0 else group for group in samples.groups.tolist()]
    order = timed("plan_epoch", lambda: PictureOrder(keys, max_branches=8, seed=0)(0))
    timed("a_thousand_samples", lambda: [samples[row] for row in order[:1000]])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds,
        "total": without_pictures(seconds),
        "cpu_seconds": cpu_seconds,
        "total_cpu": without_pictures(cpu_seconds),
        "peak_mib": most // 1024,
        "imports_mib": imported // 1024,
    }


def without_pictures(seconds: dict[str, float]) -> float:
    """All parts but the opening of every picture."""
    return round(sum(value for name, value in seconds.items() if name != "check_pictures"), 2)


def measure(folder: Path, *, pictures: bool) -> dict[str, object]:
    """`start` in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.index", "--start-in", str(folder)]
    result = subprocess.run(
        [*command, *(["--pictures"] if pictures else [])], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout)


def table(record: dict) -> str:
    """The result as people read it."""
    header = (
        "start",
        "rows",
        "file MiB",
        "index MiB",
        "seconds",
        "processor seconds",
        "peak MiB",
        "imports MiB",
    )
    sizes = (record["rows"], record["file_mib"], record["index_mib"])
    starts = (("first", record["first_start"]), ("second", record["second_start"]))
    names = ("total", "total_cpu", "peak_mib", "imports_mib")
    return as_table([header, *((start, *sizes, *(at[name] for name in names)) for start, at in starts)])


def main() -> None:
    """Make the file, start twice, print the table, write the result."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rows", type=int, default=665_000)
    options.add_argument(
        "--pictures", action="store_true", help="also open every picture, as a training does"
    )
    options.add_argument("--start-in", type=Path, help=argparse.SUPPRESS)
    args = options.parse_args()
    if args.start_in is not None:
        sys.stdout.write(json.dumps(start(args.start_in, pictures=args.pictures)))
        return
    folder = Path(tempfile.mkdtemp(prefix="llava-index-"))
    try:
        pictures = max(1, int(args.rows / ROWS_PER_PICTURE))
        (folder / "images").mkdir()
        write_pictures(folder / "images", pictures)
        write_rows(folder / "rows.json", args.rows, pictures, random.Random(0))
        starts = [measure(folder, pictures=args.pictures) for _ in range(2)]
        record = environment(["benchmarks.index", *sys.argv[1:]]) | {
            "rows": args.rows,
            "pictures": pictures,
            "file_mib": (folder / "rows.json").stat().st_size >> 20,
            "index_mib": sum(file.stat().st_size for file in folder.rglob("*.index")) >> 20,
            "first_start": starts[0],
            "second_start": starts[1],
        }
        sys.stdout.write(table(record) + "\n")
        write_result(record, Path(RESULTS, f"index_{args.rows // 1000}k.json"))
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
