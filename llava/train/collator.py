"""A list of examples to the tensors of one step; pictures are opened here, once per group, in the loader's
processes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.model.attention import PADDING, PREFIX
from llava.train.packing import Example, Pack, plan_packs
from llava.train.vision_cache import FeatureStore

PADDING_ID = 0
EMPTY_PACK = Pack([PADDING_ID], position_ids=[0], group_ids=[0], branch_ids=[PREFIX])
"""One token without a target: the same graph as any other batch, and no gradient."""


@dataclass(frozen=True)
class PackingCollator:
    """Callable for a DataLoader.

    `load_pixels` opens one picture, path -> (3, H, W); `mode` is one of `packing.MODES`; `capacity` see
    `plan_packs`. With `vision_features` pictures are not opened; their features take the place of pixels.
    """

    mode: str
    load_pixels: Callable[[str], Tensor]
    capacity: int | None = None
    vision_features: FeatureStore | None = None

    def __call__(self, examples: Sequence[Example | None]) -> dict[str, Tensor]:
        """None stands for no sample: a rank that has none left at an epoch's end computes a loss of zero."""
        present = [example for example in examples if example is not None]
        packs = plan_packs(present, self.mode, capacity=self.capacity) if present else [EMPTY_PACK]
        batch = {
            "input_ids": pad([pack.input_ids for pack in packs], PADDING_ID),
            "targets": torch.tensor(
                [(row, *target) for row, pack in enumerate(packs) for target in pack.targets],
                dtype=torch.long,
            ).reshape(-1, 3),
        }
        if self.mode == "none":
            batch["attention_mask"] = pad([[1] * len(pack.input_ids) for pack in packs], 0)
        elif not all(is_plain(pack) for pack in packs):
            batch["position_ids"] = pad([pack.position_ids for pack in packs], 0)
            batch["group_ids"] = pad([pack.group_ids for pack in packs], PADDING)
            batch["branch_ids"] = pad([pack.branch_ids for pack in packs], PREFIX)
        pictures = pictures_of(packs)
        if self.vision_features is not None:
            batch["vision_features"] = self.vision_features.stack(pictures)
        elif pictures:
            batch["pixel_values"] = torch.stack([self.load_pixels(path) for path in pictures])
        return batch


def is_plain(pack: Pack) -> bool:
    """Whether a row is one sample: causal attention is all it needs, and that is faster than any mask.

    Padding behind it sees the sample, but nothing of the sample sees padding.
    """
    return max(pack.group_ids) == 0 and max(pack.branch_ids) <= 1


def pictures_of(packs: Sequence[Pack]) -> list[str]:
    """Files of all pictures in the order of their placeholders."""
    return [path for pack in packs for path in pack.images]


def pad(rows: Sequence[Sequence[int]], value: int) -> Tensor:
    """Ragged rows to (B, T), padded at the right."""
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
