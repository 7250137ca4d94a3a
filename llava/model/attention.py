"""Who may see whom in a pack: causal, within one group, a branch sees the prefix and itself.

One rule, three forms: `may_attend` for two positions (what it means), a dense mask for SDPA and eager
attention, and a
block mask for FlexAttention on CUDA, where blocks that nobody sees cost nothing. Group -1 is padding.

        prefix  branch 1  branch 2
    p   #
    p   # #
    1   # #     #
    1   # #     # #
    2   # #                #
    2   # #                # #
"""

from collections.abc import Callable, Sequence
from functools import cache

import torch
from torch import Tensor

PREFIX = 0
"""The branch number of a group's prefix."""

PADDING = -1
"""The group number of padding."""


def may_attend(query: int, key: int, group: Sequence[int], branch: Sequence[int]) -> bool:
    """Causal, within one group; a branch sees the prefix (branch 0) and itself."""
    return key <= query and group[query] == group[key] and branch[key] in (PREFIX, branch[query])


def dense_mask(group_ids: Tensor, branch_ids: Tensor) -> Tensor:
    """`may_attend` for all pairs: (B, T), (B, T) -> bool (B, 1, T, T), True = attend."""
    length = group_ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=group_ids.device).tril()
    same_group = group_ids[:, :, None] == group_ids[:, None, :]
    seen_branch = (branch_ids[:, None, :] == PREFIX) | (branch_ids[:, :, None] == branch_ids[:, None, :])
    return (causal & same_group & seen_branch)[:, None]


def block_mask(group_ids: Tensor, branch_ids: Tensor) -> object:
    """`may_attend` as a FlexAttention block mask for (B, T) group and branch numbers.

    Uncompiled it would make the dense mask first; `compiled_block_mask` makes blocks only.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        same_group = group_ids[row, query] == group_ids[row, key]
        seen_branch = (branch_ids[row, key] == PREFIX) | (branch_ids[row, query] == branch_ids[row, key])
        return (key <= query) & same_group & seen_branch

    rows, length = group_ids.shape
    return create_block_mask(rule, rows, None, length, length, device=group_ids.device)


@cache
def compiled_block_mask() -> Callable[[Tensor, Tensor], object]:
    """`block_mask`, compiled once for batches of all sizes."""
    return torch.compile(block_mask, dynamic=True)


def attention_mask_for(
    implementation: str, group_ids: Tensor, branch_ids: Tensor, *, dtype: torch.dtype
) -> object:
    """The mask in the form that an attention implementation of transformers takes.

    `sdpa` and `two_part` take booleans, `eager` an additive mask of `dtype`, `flex_attention` a block mask.
    Flash attention knows no such masks: `ValueError`.
    """
    if implementation == "flex_attention":
        build = compiled_block_mask() if group_ids.is_cuda else block_mask
        return build(group_ids, branch_ids)
    mask = dense_mask(group_ids, branch_ids)
    if implementation in ("sdpa", "two_part"):
        return mask
    if implementation == "eager":
        return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, torch.finfo(dtype).min)
    raise ValueError(
        f"attention implementation {implementation!r} cannot share prefixes or pack samples; use "
        "--packing none, or --attn_implementation sdpa (flex_attention on a GPU)."
    )
