"""Masks: the drawing in the docstring, the three forms agree, padding sees only padding."""

import torch

from llava.model.attention import attention_mask_for, dense_mask, may_attend

GROUP = [0, 0, 0, 0, 0, 0, 1, 1, -1]
BRANCH = [0, 0, 1, 1, 2, 2, 0, 1, 0]

DRAWN = """
#........
##.......
###......
####.....
##..#....
##..##...
......#..
......##.
........#
"""


def test_mask_as_drawn() -> None:
    rows = [
        "".join("#" if may_attend(query, key, GROUP, BRANCH) else "." for key in range(len(GROUP)))
        for query in range(len(GROUP))
    ]
    assert rows == DRAWN.split()


def test_dense_mask_is_may_attend_for_every_pair() -> None:
    generator = torch.Generator().manual_seed(3)
    group = torch.randint(0, 3, (4, 17), generator=generator).sort(dim=1).values
    branch = torch.randint(0, 3, (4, 17), generator=generator)
    mask = dense_mask(group, branch)
    for row in range(4):
        for query in range(17):
            for key in range(17):
                wanted = may_attend(query, key, group[row].tolist(), branch[row].tolist())
                assert bool(mask[row, 0, query, key]) == wanted


def test_eager_mask_is_zero_where_sdpa_attends() -> None:
    group, branch = torch.tensor([GROUP]), torch.tensor([BRANCH])
    allowed = attention_mask_for("sdpa", group, branch, dtype=torch.float32)
    added = attention_mask_for("eager", group, branch, dtype=torch.float32)
    assert torch.equal(added == 0, allowed)
    assert added.min() == torch.finfo(torch.float32).min
