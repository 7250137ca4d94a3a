"""Samples that a training keeps out, to see its loss on pictures that it does not train on."""

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from llava.durable import write_whole
from llava.errors import UsageError
from llava.train.sample_index import SampleIndex

FILE_NAME = "held_out.json"


@dataclass(frozen=True)
class Split:
    """Rows that are trained on, and rows that are not, each in the file's order."""

    train: np.ndarray
    held_out: np.ndarray


def split_samples(index: SampleIndex, share: float, *, seed: int) -> Split:
    """A share of the pictures, each with all its rows, and the same share of the rows without a picture.

    At least one of each, where there are two. Pictures that stand together in a row go together. A pure
    function of the pictures' grouping, `share` and `seed`. `UsageError` when nothing is left on a side.
    """
    rows = np.arange(len(index))
    if not share:
        return Split(rows, rows[:0])
    units = picture_units(index)
    rng = random.Random(f"{seed}/held out")
    chosen = {*take(sorted({unit for unit in units if unit >= 0}), share, rng)}
    texts = {*take([row for row, unit in enumerate(units) if unit < 0], share, rng)}
    is_out = np.array([unit in chosen or row in texts for row, unit in enumerate(units)], bool)
    split = Split(rows[~is_out], rows[is_out])
    if not len(split.train) or not len(split.held_out):
        raise UsageError(
            f"--eval_split {share}: of {len(index)} samples on {len({u for u in units if u >= 0})} separate "
            f"pictures, {len(split.train)} are left to train on and {len(split.held_out)} to evaluate on; "
            "another share, more data, or --eval_split 0 is wanted."
        )
    return split


def take(units: Sequence[int], share: float, rng: random.Random) -> list[int]:
    """A share of the units, at least one of two."""
    count = max(1, round(share * len(units))) if len(units) > 1 else 0
    return rng.sample(list(units), count)


def picture_units(index: SampleIndex) -> list[int]:
    """For each row a number that it shares with all rows that are linked to it by pictures; -1 without
    one.
    """
    starts = index.arrays["row_pictures"].tolist()
    pictures = index.arrays["pictures"].tolist()
    parent = list(range(len(index.picture_rows)))

    def root(picture: int) -> int:
        while parent[picture] != picture:
            parent[picture] = parent[parent[picture]]
            picture = parent[picture]
        return picture

    for row in range(len(index)):
        own = pictures[starts[row] : starts[row + 1]]
        for picture in own[1:]:
            first, second = sorted((root(own[0]), root(picture)))
            parent[second] = first
    return [root(pictures[starts[row]]) if starts[row] < starts[row + 1] else -1 for row in range(len(index))]


def write_split(folder: Path, index: SampleIndex, split: Split) -> None:
    """The rows and ids that were kept out, for later looks."""
    rows = [{"row": row, "id": index[row].sample_id} for row in split.held_out.tolist()]
    write_whole(folder / FILE_NAME, json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
