"""Features into text: placeholders in the token ids are overwritten by patch features, in order, and counts
must agree.
"""

import torch
from torch import Tensor

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import UsageError


def embed_text(embed_tokens: torch.nn.Module, input_ids: Tensor) -> Tensor:
    """Word embeddings with any row at the placeholders (they are overwritten): (B, T) -> (B, T, D)."""
    return embed_tokens(input_ids.masked_fill(input_ids == IMAGE_TOKEN_INDEX, 0))


def write_features(embeddings: Tensor, input_ids: Tensor, features: Tensor) -> Tensor:
    """Patch features (I, P, D) over the I x P placeholders of the ids (B, T), row by row -> (B, T, D).

    Raises `UsageError` when the number of placeholders is not I x P.
    """
    placeholders = input_ids == IMAGE_TOKEN_INDEX
    found, wanted = int(placeholders.sum()), features.shape[0] * features.shape[1]
    if found != wanted:
        raise UsageError(
            f"the token ids hold {found} image placeholders, but {features.shape[0]} pictures give "
            f"{wanted} features ({features.shape[1]} each); give one picture per <image> and do not cut "
            "image tokens."
        )
    return embeddings.masked_scatter(placeholders.unsqueeze(-1), features.to(embeddings.dtype))


def expand_placeholders(
    input_ids: Tensor, attention_mask: Tensor | None, *, num_patches: int
) -> tuple[Tensor, Tensor]:
    """The original calling form, one -200 per picture, to one -200 per patch.

    (B, T) ids and mask (1 = token) -> (B, T') ids right-padded with 0, and their mask; padding inside a row
    is dropped.
    """
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    rows = []
    for ids, kept in zip(input_ids, mask.bool(), strict=True):
        ids = ids[kept]
        rows.append(ids.repeat_interleave(torch.where(ids == IMAGE_TOKEN_INDEX, num_patches, 1)))
    longest = max(len(row) for row in rows)
    expanded = input_ids.new_zeros(len(rows), longest)
    expanded_mask = torch.zeros_like(expanded)
    for number, row in enumerate(rows):
        expanded[number, : len(row)] = row
        expanded_mask[number, : len(row)] = 1
    return expanded, expanded_mask
