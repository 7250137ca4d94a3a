"""The original's calling form: ids with one -200 per picture, whose features the model itself puts in place.

Everything else of this package counts a picture's tokens before the model runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from llava.constants import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from llava.errors import UsageError

Images = Tensor | Sequence[Tensor]
"""(I, 3, H, W), (I, tiles, 3, H, W), or a list of (3, H, W) and (tiles, 3, H, W)."""


@dataclass(frozen=True)
class Expanded:
    """Ids with one -200 per patch, mask (1 = token) and labels, all (B, T), padded on one side."""

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None


def placeholders_per_row(input_ids: Tensor, attention_mask: Tensor | None) -> list[int]:
    """Pictures of every row: (B, T) -> B counts."""
    marks = input_ids == IMAGE_TOKEN_INDEX
    if attention_mask is not None:
        marks = marks & attention_mask.bool()
    return marks.sum(dim=1).tolist()


def choose_pictures(per_row: Sequence[int], images: Images) -> list[int]:
    """Which of the given pictures belong to placeholders, by their place.

    There is one picture per placeholder. Rows without a placeholder may bring one too, as the original wants:
    an empty one, all of one value. Raises `UsageError` for anything else.
    """
    wanted, without = sum(per_row), list(per_row).count(0)
    if len(images) == wanted:
        return list(range(wanted))
    chosen, place = [], 0
    for count in per_row:
        chosen += range(place, place + count)
        place += count or 1
    spare = set(range(len(images))) - set(chosen)
    if len(images) != wanted + without or not all(is_empty(images[place]) for place in spare):
        raise UsageError(
            f"the token ids hold {wanted} image placeholders, but {len(images)} pictures came; give one "
            "picture per <image> (rows without may bring an empty one)."
        )
    return chosen


def is_empty(image: Tensor) -> bool:
    """Whether a picture shows nothing: all of its numbers are equal."""
    return bool((image == image.flatten()[0]).all())


def expand(
    input_ids: Tensor,
    attention_mask: Tensor | None,
    labels: Tensor | None,
    *,
    counts: Sequence[int],
    padding_side: str = "right",
) -> Expanded:
    """One -200 per picture (B, T) to one per patch; `counts` are the patches of each picture, row by row.

    Padding, wherever it stands, is dropped and put on one side. A picture's labels are `IGNORE_INDEX`.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    left = iter(counts)
    rows, row_labels = [], []
    for number, kept in enumerate(mask.bool()):
        ids = input_ids[number][kept]
        repeats = torch.tensor(
            [next(left) if token == IMAGE_TOKEN_INDEX else 1 for token in ids.tolist()],
            dtype=torch.long,
            device=ids.device,
        )
        expanded = ids.repeat_interleave(repeats)
        rows.append(expanded)
        if labels is not None:
            values = labels[number][kept].repeat_interleave(repeats)
            row_labels.append(values.masked_fill(expanded == IMAGE_TOKEN_INDEX, IGNORE_INDEX))
    ones = [torch.ones_like(row) for row in rows]
    return Expanded(
        pad_rows(rows, 0, padding_side),
        pad_rows(ones, 0, padding_side),
        None if labels is None else pad_rows(row_labels, IGNORE_INDEX, padding_side),
    )


def pad_rows(rows: Sequence[Tensor], value: int, side: str) -> Tensor:
    """Rows of differing lengths to (B, T), filled up with `value` on one side."""
    return torch.nn.utils.rnn.pad_sequence(
        list(rows), batch_first=True, padding_value=value, padding_side=side
    )
