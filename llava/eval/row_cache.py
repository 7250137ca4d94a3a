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
        length = source.get_seq_length()
        self.buffers = self._space(source.keys, source.values, len(rows), length)
        for buffer, tensor in zip(self.buffers, (source.keys, source.values), strict=True):
            torch.index_select(tensor, 0, rows, out=buffer[:, :, :length])
        self._show(len(rows), length)

    def join(self, first: "RoomyLayer", second: "RoomyLayer") -> None:
        """Begin with the rows of two layers, one below the other, the shorter rows with zeros behind them."""
        assert first.keys is not None
        assert first.values is not None
        self.lazy_initialization(first.keys, first.values)
        above = len(first.keys)
        rows = above + len(second.keys)
        length = max(first.get_seq_length(), second.get_seq_length())
        self.buffers = self._space(first.keys, first.values, rows, length)
        for buffer, upper, lower in zip(
            self.buffers, (first.keys, first.values), (second.keys, second.values), strict=True
        ):
            buffer[:, :, :length] = 0
            buffer[:above, :, : upper.shape[-2]] = upper
            buffer[above:, :, : lower.shape[-2]] = lower
        self._show(rows, length)

    def update(self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object) -> tuple:
        """Write new keys and values (B, N, S, H) behind the others; returns all of them."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        rows = len(key_states)
        if self.buffers is None or end > self.buffers[0].shape[-2]:
            buffers = self._space(key_states, value_states, rows, end)
            if start:
                buffers[0][:, :, :start] = self.keys
                buffers[1][:, :, :start] = self.values
            self.buffers = buffers
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

    def _space(self, keys: Tensor, values: Tensor, rows: int, length: int) -> tuple[Tensor, Tensor]:
        """New buffers for rows of that length and the room behind it, with the heads of these tensors."""
        sizes = [(rows, tensor.shape[1], length + self.room, tensor.shape[-1]) for tensor in (keys, values)]
        return keys.new_empty(sizes[0]), values.new_empty(sizes[1])

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
        if room is not None and type(layer) in (DynamicLayer, RoomyLayer):
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


def join_rows(first: DynamicCache, second: DynamicCache, *, room: int) -> DynamicCache:
    """One cache with the rows of both, see `RoomyLayer.join`; both have such layers only."""
    joined = copy.copy(first)
    joined.layers = [RoomyLayer(room) for _ in first.layers]
    for layer, upper, lower in zip(joined.layers, first.layers, second.layers, strict=True):
        layer.join(upper, lower)
    return joined


def can_join(cache: DynamicCache) -> bool:
    """Whether rows of the cache can go on beside those of another."""
    return all(isinstance(layer, RoomyLayer) for layer in cache.layers)
