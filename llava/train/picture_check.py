"""Every picture of the samples, seen before the first step; what took long is kept for the next start."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from llava.images import MAX_PIXELS
from llava.picture_checks import Look, choose_mode, look_at, look_at_all
from llava.records import Problems, shorten
from llava.train.kept_looks import KeptLooks
from llava.train.sample_index import Sample, SampleIndex
from llava.train.samples import tell_notes

KEPT_FROM_SECONDS = 5
"""What is seen sooner is seen anew at each start; nothing is kept of it."""


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
    with kept_look(data, decode=mode == "full") as look:
        for row, seen in zip(rows, look_at_all(paths, look), strict=True):
            if seen.problem:
                sample = samples[row]
                problems.add(f"row {sample.row} (id {shorten(sample.sample_id)}), image", seen.problem)
            for kind, _ in seen.notes:
                notes.setdefault(kind, [0, f"row {row}"])[0] += 1
    problems.raise_any()
    tell_notes("pictures", notes)


@contextmanager
def kept_look(
    data: Path | None, *, decode: bool, max_pixels: int = MAX_PIXELS
) -> Iterator[Callable[[str], Look]]:
    """A `look_at` that remembers what was seen in earlier starts, beside the data file `data`.

    What was seen within the `with` is kept if that took long and ended well.
    """
    kept = KeptLooks(data, decode=decode, max_pixels=max_pixels)
    began = time.perf_counter()
    yield partial(kept.look, partial(look_at, decode=decode, max_pixels=max_pixels))
    if time.perf_counter() - began >= KEPT_FROM_SECONDS:
        kept.save()
