"""The batch of a step whose loss or gradient was not finite, kept for inspection."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from llava.durable import write_whole


@dataclass(frozen=True)
class BadStep:
    """What is known of it on this rank: a loss, a batch and the samples' ids for each micro-batch."""

    step: int
    losses: Sequence[float]
    norm: float | None
    batches: Sequence[dict[str, Any]]
    ids: Sequence[Sequence[str]]

    @property
    def bad(self) -> list[int]:
        """The micro-batches to look at: those whose loss is not finite, all where only the gradient is
        not.
        """
        places = [place for place, loss in enumerate(self.losses) if not math.isfinite(loss)]
        return places or list(range(len(self.batches)))

    @property
    def bad_ids(self) -> list[str]:
        """Their samples."""
        return [one for place in self.bad for one in self.ids[place]]


def save_bad_step(bad: BadStep, stem: Path, tokenizer: PreTrainedTokenizerBase | None) -> Path:
    """`stem`.safetensors with the tensors, named by micro-batch, and `stem`.json with ids, losses and texts;
    the latter's path.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{place}.{name}": value.detach().cpu().contiguous()
        for place in bad.bad
        for name, value in bad.batches[place].items()
        if isinstance(value, Tensor)
    }
    save_file(tensors, str(stem.with_name(f"{stem.name}.safetensors")))
    report = {
        "step": bad.step,
        "gradient_norm": shown(bad.norm),
        "micro_batches": [
            {
                "number": place,
                "loss": shown(bad.losses[place]) if place < len(bad.losses) else None,
                "ids": list(bad.ids[place]),
                "rows": texts_of(bad.batches[place], tokenizer),
            }
            for place in bad.bad
        ],
    }
    file = stem.with_name(f"{stem.name}.json")
    write_whole(file, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return file


def shown(value: float | None) -> float | str | None:
    """JSON has no number for what is not finite."""
    return value if value is None or math.isfinite(value) else str(value)


def texts_of(batch: dict[str, Any], tokenizer: PreTrainedTokenizerBase | None) -> list[str]:
    """The batch's rows as text, without pictures and padding."""
    if tokenizer is None:
        return []
    pad = tokenizer.pad_token_id
    return [
        tokenizer.decode([token for token in row if token > 0 and token != pad])
        for row in batch["input_ids"].tolist()
    ]
