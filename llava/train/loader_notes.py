"""What each loader process is at, kept where the training can read it after the process is gone."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch.utils.data import Dataset, get_worker_info

from llava.train.collator import PackingCollator
from llava.train.packing import Example
from llava.train.step_progress import named

SLOT_BYTES = 2048
IDS_KEY = "sample_ids"


class LoaderNotes:
    """A line of text per loader process, in memory that all processes share."""

    def __init__(self, num_workers: int) -> None:
        self.slots = torch.zeros(max(1, num_workers), SLOT_BYTES, dtype=torch.uint8).share_memory_()

    def write(self, text: str) -> None:
        """This process is at something new; without loader processes nothing is noted."""
        worker = get_worker_info()
        if worker is not None:
            line = f"{os.getpid()} {text}".encode()[: SLOT_BYTES - 1].ljust(SLOT_BYTES, b"\0")
            self.slots[worker.id] = torch.frombuffer(bytearray(line), dtype=torch.uint8)

    def read(self) -> dict[int, str]:
        """Process -> what it was at."""
        lines = [bytes(slot.tolist()).rstrip(b"\0").decode(errors="replace") for slot in self.slots]
        return {int(process): text for process, _, text in (line.partition(" ") for line in lines) if text}

    def about(self, error: BaseException) -> str:
        """What the loader processes that an error of torch's DataLoader names were at, else nothing."""
        message = str(error)
        if "DataLoader worker (pid" not in message:
            return ""
        return "; ".join(
            f"loader process {process} was {text}"
            for process, text in self.read().items()
            if str(process) in message
        )


class NotingDataset(Dataset):
    """A dataset that notes which row is encoded."""

    def __init__(self, dataset: Any, notes: LoaderNotes) -> None:
        self.dataset, self.notes = dataset, notes

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | None) -> Example | None:
        self.notes.write(f"encoding row {index}")
        return self.dataset[index]


class NotingCollator:
    """A collator that notes its rows and pictures, names them in its errors, and adds their ids to the
    batch.
    """

    def __init__(self, collate: Callable[[Sequence[Any]], dict[str, Any]], notes: LoaderNotes) -> None:
        self.collate, self.notes = collate, notes
        self.rows = ""
        if isinstance(collate, PackingCollator):
            self.load_pixels = collate.load_pixels
            self.collate = replace(collate, load_pixels=self._load)

    def __call__(self, examples: Sequence[Example | None]) -> dict[str, Any]:
        ids = [example.sample_id for example in examples if example is not None]
        self.rows = named(ids)
        self.notes.write(f"making a batch of {self.rows}")
        try:
            batch = self.collate(examples)
        except Exception as error:
            error.add_note(f"while making a batch of {self.rows}")
            raise
        self.notes.write(f"between batches, the last of {self.rows}")
        return {**batch, IDS_KEY: ids}

    def _load(self, path: str) -> torch.Tensor:
        self.notes.write(f"opening {path} for a batch of {self.rows}")
        return self.load_pixels(path)
