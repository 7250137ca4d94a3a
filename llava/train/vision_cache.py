"""What a frozen vision tower sees in a picture, computed once before training and kept, in memory or on disk.

The collator then hands over features instead of pixels, so that no picture is decoded in later epochs and the
tower never runs in a step. They are stored in the type that the tower computes.
"""

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
import torch
from accelerate import PartialState
from accelerate.utils import gather, gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from llava.errors import UsageError
from llava.model.llava import LlavaForCausalLM
from llava.train.memory import processes_here
from llava.train.vision_files import (
    FeatureFile,
    FeatureWriter,
    content_hashes,
    known_rows,
    read_entry,
    set_key,
    tower_key,
)

logger = logging.getLogger(__name__)

PICTURES_AT_ONCE = 16
SHARE_OF_FREE_MEMORY = 8
"""`auto` keeps features in memory when they take at most this fraction (1 / it) of what is free."""


@dataclass(frozen=True)
class FeatureStore:
    """Features by picture file: `tensor` (M, P, V), and the row of each path; `file` where they are on
    disk.
    """

    rows: Mapping[str, int]
    tensor: Tensor
    file: FeatureFile | None = field(default=None)

    def stack(self, paths: Sequence[str]) -> Tensor:
        """The features of pictures, in order: (I, P, V), also for none."""
        return self.tensor[[self.rows[path] for path in paths]]

    def __getstate__(self) -> dict:
        """For loader processes that do not inherit memory: they map the file themselves."""
        return vars(self) | ({} if self.file is None else {"tensor": None})

    def __setstate__(self, state: dict) -> None:
        if state["file"] is not None:
            state = state | {"tensor": state["file"].open()}
        vars(self).update(state)


@dataclass(frozen=True)
class Use:
    """How much there is to gain and to keep: distinct pictures, how often the run sees one of them, bytes of
    one picture's features, and why they cannot be kept (None: they can).
    """

    num_pictures: int
    num_seen: int
    bytes_each: int
    obstacle: str | None

    @property
    def num_bytes(self) -> int:
        """Bytes of all features."""
        return self.num_pictures * self.bytes_each


def times_seen(
    groups: np.ndarray, num_pictures: np.ndarray, *, shared: bool, max_branches: int, epochs: float
) -> int:
    """How often the tower runs on a picture without a cache. In `shared` packs, samples of the same pictures
    share them.

    Args:
        groups: (R,) of each sample, equal where the pictures are, -1 without a picture.
        num_pictures: (R,) of each sample.
    """
    _, first, num_samples = np.unique(groups[groups >= 0], return_index=True, return_counts=True)
    size = max_branches if shared else 1
    rounds = -(-num_samples // size)
    return math.ceil(epochs * int((num_pictures[groups >= 0][first] * rounds).sum()))


def obstacle_of(tower: nn.Module) -> str | None:
    """Why a tower's features cannot be kept, None when they can."""
    if any(weight.requires_grad for weight in tower.parameters()):
        return "the vision tower is trained"
    drops = any(isinstance(part, nn.Dropout) and part.p > 0 for part in tower.modules())
    if drops or getattr(tower.config, "attention_dropout", 0.0) > 0:
        return "the vision tower has dropout"
    return None


def choose_kind(wanted: str, use: Use, *, free_bytes: int) -> tuple[str, str]:
    """`memory`, `disk` or `off`, and why. `UsageError` for a wish that cannot be granted."""
    if wanted in ("memory", "disk") and use.obstacle:
        raise UsageError(
            f"--cache_vision_features {wanted}: {use.obstacle}, so its features change; use "
            "--cache_vision_features off (or auto), or --freeze_vision_tower True."
        )
    size = f"{use.num_pictures:,} pictures, {use.num_bytes / 1e6:,.1f} MB"
    if use.num_pictures == 0:
        return "off", "no sample has a picture"
    if wanted != "auto":
        return wanted, f"{size}; --cache_vision_features {wanted}"
    if use.obstacle:
        return "off", use.obstacle
    if use.num_seen <= use.num_pictures:
        return "off", f"{size}; each is seen once"
    budget = free_bytes // SHARE_OF_FREE_MEMORY
    room = f"1/{SHARE_OF_FREE_MEMORY} of the free memory is {budget / 1e6:,.0f} MB"
    if use.num_bytes > budget:
        return "off", f"{size}; {room}; --cache_vision_features disk keeps them in files"
    return "memory", f"{size}, seen {use.num_seen:,} times; {room}"


def free_memory() -> int:
    """Bytes of main memory for each process of this machine."""
    return psutil.virtual_memory().available // processes_here()


@dataclass(frozen=True)
class Seer:
    """The tower at work: `load_pixels` opens a picture, path -> (3, H, W), in `num_workers` processes.

    `autocast` is the type that training computes in, None for that of the weights.
    """

    model: LlavaForCausalLM
    load_pixels: Callable[[str], Tensor]
    device: torch.device
    autocast: torch.dtype | None = None
    num_workers: int = 0
    show_progress: bool = False

    def context(self) -> AbstractContextManager:
        """As in a training step."""
        if self.autocast is None:
            return nullcontext()
        return torch.autocast(self.device.type, self.autocast)

    def see(self, paths: Sequence[str]) -> Iterator[tuple[range, Tensor]]:
        """Features of all pictures, batch by batch: (places in `paths`, (n, P, V) on the CPU).

        Ranks share the work; every rank gets everything, in the same order.
        """
        state = PartialState()
        step = PICTURES_AT_ONCE * state.num_processes
        starts = [start + PICTURES_AT_ONCE * state.process_index for start in range(0, len(paths), step)]
        mine = [paths[min(start + k, len(paths) - 1)] for start in starts for k in range(PICTURES_AT_ONCE)]
        if state.num_processes == 1:
            mine = mine[: len(paths)]
        loader = DataLoader(Pictures(mine, self.load_pixels), PICTURES_AT_ONCE, num_workers=self.num_workers)
        tower = self.model.model.vision_tower
        home = next(tower.parameters()).device
        tower.to(self.device)
        bar = tqdm(total=len(paths), desc="vision features", unit="pictures", disable=not self.show_progress)
        try:
            for number, pixels in enumerate(loader):
                with torch.no_grad(), self.context():
                    features = self.model.tower_features(pixels.to(self.device))
                if state.num_processes > 1:
                    features = gather(features)
                places = range(number * step, min((number + 1) * step, len(paths)))
                bar.update(len(places))
                yield places, features[: len(places)].cpu()
        finally:
            bar.close()
            tower.to(home)


@dataclass(frozen=True)
class Pictures(Dataset):
    """Pixels of picture files."""

    paths: Sequence[str]
    load_pixels: Callable[[str], Tensor]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.load_pixels(self.paths[index])


def keep_in_memory(seer: Seer, paths: Sequence[str]) -> FeatureStore:
    """Features of distinct pictures as one tensor, on every rank."""
    tensor = None
    for places, features in seer.see(paths):
        if tensor is None:
            tensor = features.new_empty(len(paths), *features.shape[1:])
        tensor[places.start : places.stop] = features
    assert tensor is not None, "there are pictures"
    return FeatureStore({path: row for row, path in enumerate(paths)}, tensor)


def keep_on_disk(seer: Seer, paths: Sequence[str], folder: Path, *settings: object) -> FeatureStore:
    """Features of distinct pictures in a file below `folder`, which one process of each machine writes.

    `settings`: what decides how pictures become pixels; with the tower's weights it names the sub-folder.
    """
    folder = folder / tower_key(seer.model.model.vision_tower, *settings, str(seer.autocast))
    state = PartialState()
    mine = paths[state.process_index :: state.num_processes]
    found = gather_object(list(zip(mine, content_hashes(mine), strict=True)))
    hash_of = dict(found)
    hashes = list(dict.fromkeys(hash_of[path] for path in paths))
    place = folder / f"{set_key(hashes)}.json"
    if not all(gather_object([read_entry(place) is not None])):
        write_set(seer, folder, hashes, {hash_of[path]: path for path in paths})
    entry = read_entry(place)
    assert entry is not None, "it was just written"
    return FeatureStore({path: entry.rows[hash_of[path]] for path in paths}, entry.open(), entry)


def write_set(seer: Seer, folder: Path, hashes: Sequence[str], path_of: Mapping[str, str]) -> None:
    """Write a set's file: rows that every machine has in other sets are copied, the others computed."""
    state = PartialState()
    known = known_rows(folder, hashes)
    everywhere = set.intersection(*map(set, gather_object([list(known)])))
    missing = [row for row, name in enumerate(hashes) if name not in everywhere]
    writer = FeatureWriter(folder, hashes) if state.is_local_main_process else None
    try:
        if writer is not None:
            opened = {entry.path: entry.open() for entry, _ in known.values()}
            for row, name in enumerate(hashes):
                if name in everywhere:
                    entry, old = known[name]
                    writer.write([row], opened[entry.path][old : old + 1])
        for places, features in seer.see([path_of[hashes[row]] for row in missing]):
            if writer is not None:
                writer.write([missing[place] for place in places], features)
        if writer is not None:
            writer.finish()
    except BaseException:
        if writer is not None:
            writer.discard()
        raise
    state.wait_for_everyone()


def default_folder() -> Path:
    """Where features are kept if no folder is named: below the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "llava" / "vision_features"
