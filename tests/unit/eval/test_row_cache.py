"""The cache with room: what transformers' own layer holds, through growth beyond its room and rows that
leave.
"""

import random

import pytest
import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from llava.eval.row_cache import RoomyLayer, empty_cache, keep_rows, spread_rows
from tests.tiny import tiny_text

LAYERS = 2


def grow(caches: list[DynamicCache], *, rows: int, tokens: int, generator: torch.Generator) -> None:
    """The same new keys and values in all caches, which must show the same."""
    for layer in range(LAYERS):
        keys, values = torch.randn(2, rows, 2, tokens, 8, generator=generator)
        shown = [cache.update(keys, values, layer) for cache in caches]
        for found in shown[1:]:
            assert torch.equal(found[0], shown[0][0])
            assert torch.equal(found[1], shown[0][1])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("from_prefix", [False, True])
def test_it_holds_what_transformers_holds(seed: int, from_prefix: bool) -> None:
    rng, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    plain = DynamicCache(config=tiny_text())
    if from_prefix:
        grow([plain], rows=3, tokens=5, generator=generator)
        places = torch.tensor([rng.randrange(3) for _ in range(8)])
        before = plain.layers[0].keys.clone()
        roomy = spread_rows(plain, places, room=4)
        assert torch.equal(plain.layers[0].keys, before), "the source stays as it is"
        plain.batch_select_indices(places)
    else:
        roomy = empty_cache(tiny_text(), room=4)
    assert all(isinstance(layer, RoomyLayer) for layer in roomy.layers)
    rows, moved = 8, False
    for step in range(9):
        grow([plain, roomy], rows=rows, tokens=1 + 3 * (step % 3 == 0), generator=generator)
        kept = sorted(rng.sample(range(rows), max(rows - rng.randrange(3), 1)))
        order = keep_rows(roomy, kept, rows)
        assert sorted(order) == kept
        moved = moved or order != kept
        plain.batch_select_indices(torch.tensor(order))
        rows = len(kept)
    assert rows < 8, "rows must leave"
    assert roomy.get_seq_length() > 4 + 4, "more than the first room"
    assert moved, "a row must take another's place"


def test_beams_get_layers_that_transformers_can_reorder() -> None:
    plain = DynamicCache(config=tiny_text())
    grow([plain], rows=2, tokens=3, generator=torch.Generator().manual_seed(0))
    spread = spread_rows(plain, torch.tensor([1, 1, 0]), room=None)
    assert {type(layer) for layer in spread.layers} == {DynamicLayer}
    assert torch.equal(spread.layers[0].keys[0], plain.layers[0].keys[1])
    assert len(plain.layers[0].keys) == 2
