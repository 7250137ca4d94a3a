"""How long training steps wait for their data, with pictures opened in the training process and ahead of it.

    python -m playground.mini_world.make_people --out people
    python -m benchmarks.waiting --data people/train.json --images people/images --workers 0 1

Steps of the mini world's base model on its pictures; `--photo-size 1024` makes JPEG files of that many pixels
a side of them, as cameras do. Rounds of the settings alternate, so that a busy machine slows all of them. The
table gives medians over the rounds and how many times less than with the first setting is waited.
"""

import argparse
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader

from benchmarks.record import RESULTS, environment, table_of_rows, write_result
from llava.conversation import training_template
from llava.model.builder import load_full
from llava.model.llava import LlavaForCausalLM
from llava.processing import load_image_processor
from llava.tokenizer import load_tokenizer
from llava.train.collator import PackingCollator
from llava.train.conversations import ConversationDataset, Encoding
from llava.train.recipe import open_pixels
from llava.train.sampler import EpochSampler, PictureOrder
from llava.train.samples import read_samples


def loader_of(args: argparse.Namespace, model: LlavaForCausalLM, workers: int) -> DataLoader:
    """Batches as training draws them."""
    samples = read_samples(args.data, args.images)
    encoding = Encoding(training_template("v1"), load_tokenizer(args.model), model.num_patches, 2048)
    keys = [None if group < 0 else group for group in samples.groups.tolist()]
    ratio = model.config.image_aspect_ratio
    load_pixels = partial(
        open_pixels, image_processor=load_image_processor(args.model), image_aspect_ratio=ratio
    )
    return DataLoader(
        ConversationDataset(samples, encoding),
        batch_size=args.batch_size,
        sampler=EpochSampler(PictureOrder(keys, max_branches=8, seed=0), num_samples=len(samples)),
        collate_fn=PackingCollator("shared", load_pixels),
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def write_photos(images: Path, folder: Path, size: int) -> None:
    """The same pictures under the same names, as JPEG files of `size` x `size` pixels."""
    for file in sorted(path for path in images.rglob("*") if path.is_file()):
        target = folder / file.relative_to(images)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(file) as picture:
            picture.convert("RGB").resize((size, size)).save(target, format="JPEG", quality=90)


def epoch(model: LlavaForCausalLM, loader: DataLoader, steps: int) -> tuple[float, float]:
    """Seconds per step that were waited and worked, without the first step, which starts the workers."""
    batches = iter(loader)
    waited = worked = 0.0
    for step in range(steps + 1):
        began = time.perf_counter()
        batch = next(batches)
        arrived = time.perf_counter()
        model(**batch).loss.backward()
        model.zero_grad()
        if step:
            waited += arrived - began
            worked += time.perf_counter() - arrived
    return waited / steps, worked / steps


def main() -> None:
    """Measure and print JSON."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--model", type=Path, default=Path("playground/mini_world/base"))
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--images", type=Path, required=True)
    options.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    options.add_argument("--batch-size", type=int, default=16)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--photo-size", type=int, help="pixels a side; default: the pictures as they are")
    args = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.photo_size:
            write_photos(args.images, Path(folder), args.photo_size)
            args.images = Path(folder)
        record = environment(["benchmarks.waiting", *sys.argv[1:]]) | {"rows": measure(args)}
    sys.stdout.write(table_of_rows(record) + "\n")
    write_result(record, Path(RESULTS, "waiting.json"))


def measure(args: argparse.Namespace) -> list[dict[str, object]]:
    """Milliseconds of a step by loader processes, medians over the rounds."""
    model = load_full(args.model, dtype=torch.float32).train()
    model.model.vision_tower.requires_grad_(False)
    found: dict[int, list[tuple[float, float]]] = {workers: [] for workers in args.workers}
    for _ in range(args.rounds):
        for workers in args.workers:
            found[workers].append(epoch(model, loader_of(args, model, workers), args.steps))
    waits = {workers: statistics.median(wait for wait, _ in times) for workers, times in found.items()}
    return [
        {
            "workers": workers,
            "waited_ms": round(1000 * waits[workers], 2),
            "worked_ms": round(1000 * statistics.median(work for _, work in times), 2),
            "step_ms": round(1000 * statistics.median(map(sum, times)), 2),
            "times_less_waiting": round(waits[args.workers[0]] / waits[workers], 1),
        }
        for workers, times in found.items()
    ]


if __name__ == "__main__":
    main()
