"""Features into text: placeholders in the token ids are overwritten by patch features, in order, and counts
must agree.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from llava.constants import IMAGE_TOKEN_INDEX
from llava.errors import UsageError


def embed_text(embed_tokens: torch.nn.Module, input_ids: Tensor) -> Tensor:
    """Word embeddings with any row at the placeholders (they are overwritten): (B, T) -> (B, T, D)."""
    return embed_tokens(input_ids.masked_fill(input_ids == IMAGE_TOKEN_INDEX, 0))


def write_features(embeddings: Tensor, input_ids: Tensor, features: Tensor | Sequence[Tensor]) -> Tensor:
    """Features of pictures over the placeholders of the ids (B, T), row by row -> (B, T, D).

    `features` are (I, P, D), or one (P, D) per picture where their numbers of patches differ. Raises
    `UsageError` when the number of placeholders is not that of the features.
    """
    placeholders = input_ids == IMAGE_TOKEN_INDEX
    rows = features.flatten(0, 1) if isinstance(features, Tensor) else torch.cat(list(features))
    found, wanted = int(placeholders.sum()), len(rows)
    if found != wanted:
        raise UsageError(
            f"the token ids hold {found} image placeholders, but {len(features)} pictures give "
            f"{wanted} features ({', '.join(map(str, sorted({len(one) for one in features})))} each); give "
            "one picture per <image> and do not cut image tokens."
        )
    return embeddings.masked_scatter(placeholders.unsqueeze(-1), rows.to(embeddings.dtype))
