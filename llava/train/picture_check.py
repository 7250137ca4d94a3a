"""Every picture of the samples, seen before the first step; what took long is kept for the next start."""

import logging
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

from llava.images import MAX_PIXELS
from llava.picture_checks import Look, look_at
from llava.records import Problems, shorten
from llava.train.kept_looks import KeptLooks
from llava.train.sample_index import Sample, SampleIndex
from llava.train.samples import tell_notes

logger = logging.getLogger(__name__)

FULL_CHECK_LIMIT = 20_000
MOST_THREADS = 8
PICTURES_AT_ONCE = 4096
"""Pictures that wait for a thread; the list of a whole large data set would itself be large."""
KEPT_FROM_SECONDS = 5
"""What is seen sooner is seen anew at each start; nothing is kept of it."""


def choose_mode(mode: str, num_pictures: int) -> str:
    """`full` decodes, `header` reads type and size, `none` does nothing; `auto` decides by their number."""
    if mode != "auto":
        return mode
    return "full" if num_pictures <= FULL_CHECK_LIMIT else "header"


def check_pictures(samples: Sequence[Sample], mode: str = "auto", *, data: Path | None = None) -> None:
    """Open every distinct picture once, in threads; `DataError` lists the unreadable ones, each with a row.

    `mode` as for `choose_mode`. What is worth knowing is logged. What took long is kept beside the data file
    `data`, if it is named, and trusted as long as the pictures are the same.
    """
    index = SampleIndex.of(samples)
    rows = index.picture_rows.tolist()
    mode = choose_mode(mode, len(rows))
    if mode == "none":
        return
    problems, notes = Problems(Path("pictures")), {}
    paths = (index.picture_path(number) for number in range(len(rows)))
    for row, look in zip(rows, look_at_all(paths, decode=mode == "full", data=data), strict=True):
        if look.problem:
            sample = samples[row]
            problems.add(f"row {sample.row} (id {shorten(sample.sample_id)}), image", look.problem)
        for kind, _ in look.notes:
            notes.setdefault(kind, [0, f"row {row}"])[0] += 1
    problems.raise_any()
    tell_notes("pictures", notes)


def look_at_all(
    paths: Iterable[str], *, decode: bool, max_pixels: int = MAX_PIXELS, data: Path | None = None
) -> Iterator[Look]:
    """What is seen of each picture, in order, by several threads; see `check_pictures` for `data`."""
    kept = KeptLooks(data, decode=decode, max_pixels=max_pixels)
    seconds, paths = 0.0, iter(paths)
    see = partial(kept.look, partial(look_at, decode=decode, max_pixels=max_pixels))
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        while block := list(islice(paths, PICTURES_AT_ONCE)):
            began = time.perf_counter()
            looks = list(pool.map(see, block))
            seconds += time.perf_counter() - began
            yield from looks
    if seconds >= KEPT_FROM_SECONDS:
        kept.save()
