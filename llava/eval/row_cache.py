"""A key-value cache whose rows may leave: it has room for what is decoded, and a step writes into that room.

transformers' own layer copies all keys and values for every new token; here a token costs its own size, and
rows that are done cost the copy of the rows that take their places.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedConfig
from transformers.cache_utils import DynamicLayer


class RoomyLayer(DynamicLayer):
    """Keys and values (B, N, T, H) as views of buffers that are longer by up to `room` tokens."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.buffers: tuple[Tensor, Tensor] | None = None

    def take_rows(self, source: DynamicLayer, rows: Tensor) -> None:
        """Begin with rows (B,) of another layer, each as often as it is named."""
        assert source.keys is not None
        assert source.values is not None
        self.lazy_initialization(source.keys, source.values)
        self._store(source.keys[rows], source.values[rows])

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple:
        """Write new keys and values (B, N, S, H) behind the others; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if self.buffers is None or end > self.buffers[0].shape[-2]:
            if start:
                key_states = torch.cat([self.keys, key_states], dim=-2)
                value_states = torch.cat([self.values, value_states], dim=-2)
            self._store(key_states, value_states)
        else:
            rows = len(key_states)
            self.buffers[0][:rows, :, start:end] = key_states
            self.buffers[1][:rows, :, start:end] = value_states
            self._show(rows, end)
        return self.keys, self.values

    def drop_rows(self, places: Sequence[int], movers: Sequence[int], left: int) -> None:
        """Keep the first `left` rows, after the rows `movers` (all behind) have gone to `places`."""
        assert self.buffers is not None
        length = self.get_seq_length()
        if places:
            for buffer in self.buffers:
                buffer[list(places), :, :length] = buffer[list(movers), :, :length]
        self._show(left, length)

    def _store(self, keys: Tensor, values: Tensor) -> None:
        """New buffers with room, that begin with these."""
        rows, heads, length, _ = keys.shape
        self.buffers = (
            keys.new_empty(rows, heads, length + self.room, keys.shape[-1]),
            values.new_empty(rows, heads, length + self.room, values.shape[-1]),
        )
        self.buffers[0][:, :, :length] = keys
        self.buffers[1][:, :, :length] = values
        self._show(rows, length)

    def _show(self, rows: int, length: int) -> None:
        """What is used of the buffers."""
        assert self.buffers is not None
        self.keys = self.buffers[0][:rows, :, :length]
        self.values = self.buffers[1][:rows, :, :length]


def empty_cache(config: PreTrainedConfig, *, room: int) -> DynamicCache:
    """A cache for a language model of that configuration; layers of special kinds (a sliding window) stay
    transformers' own.
    """
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer(room) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache


def spread_rows(cache: DynamicCache, rows: Tensor, *, room: int | None) -> DynamicCache:
    """A new cache with these rows (B,) of another, which stays as it is; all layers transformers' own where
    `room` is None, as beams need it.
    """
    layers = []
    for layer in cache.layers:
        if room is not None and type(layer) is DynamicLayer:
            spread = RoomyLayer(room)
            spread.take_rows(layer, rows)
        else:
            spread = copy.copy(layer)
            spread.batch_select_indices(rows)  # type: ignore[attr-defined]
        layers.append(spread)
    result = copy.copy(cache)
    result.layers = layers
    return result


def keep_rows(cache: DynamicCache, kept: Sequence[int], num_rows: int) -> list[int]:
    """Let all rows but `kept` leave; returns which row stands at each place now, since some move up."""
    left = len(kept)
    gone = set(range(num_rows)).difference(kept)
    places = [row for row in range(left) if row in gone]
    movers = [row for row in kept if row >= left]
    order = list(range(left))
    for place, mover in zip(places, movers, strict=True):
        order[place] = mover
    for layer in cache.layers:
        if isinstance(layer, RoomyLayer):
            layer.drop_rows(places, movers, left)
        else:
            layer.batch_select_indices(torch.tensor(order, device=layer.keys.device))  # type: ignore
    return order
