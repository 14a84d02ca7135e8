"""Key-value caches in the shape that transformers' decoders expect: what a prompt leaves, and a completion's own.

K and V of a layer are [rows, heads, tokens, head_dim]. None of them trims a sliding window: the masks of
`dermiq.policy.attention` do, and a fork needs the whole prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

KeyValue = tuple[Tensor, Tensor]


class _Layer(DynamicLayer):
    keys: Tensor
    values: Tensor

    def _hold(self, keys: Tensor, values: Tensor) -> None:
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True


class _RecordingLayer(_Layer):
    """Written once, so that recomputing the layer in the backward pass changes nothing."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        if not self.is_initialized:
            self._hold(key_states, value_states)
        return key_states, value_states


@dataclass
class Room:
    """Where completions' own tokens are kept.

    Attributes:
        tokens: of the longest completion.
        place: of the token that is written next, which whoever owns the cache moves on: a number, and attention looks
            no further; or [1] int64, and attention is shown all places, so that every step has the same shape.
    """

    tokens: int
    place: int | Tensor


class _OwnLayer(_Layer):
    """Keys and values of a completion's own tokens, one more with each step, in room that is taken once."""

    def __init__(self, room: Room) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._room = room

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        room = self._room
        if not self.is_initialized:
            rows, heads, _, channels = key_states.shape
            shape = (rows, heads, room.tokens, channels)
            self._hold(value_states.new_zeros(shape), value_states.new_zeros(shape))
        if isinstance(room.place, Tensor):
            self.keys.index_copy_(2, room.place, key_states.to(self.keys.dtype))
            self.values.index_copy_(2, room.place, value_states)
            return self.keys, self.values
        self.keys[:, :, room.place] = key_states[:, :, 0]
        self.values[:, :, room.place] = value_states[:, :, 0]
        return self.keys[:, :, : room.place + 1], self.values[:, :, : room.place + 1]


class OwnCache(Cache):
    """Keys and values of the tokens that completions have written themselves, for a decoder of so many layers."""

    def __init__(self, layers: int, room: Room) -> None:
        super().__init__(layers=[_OwnLayer(room) for _ in range(layers)])

    def keep(self, rows: Tensor) -> None:
        """Only `rows` [n] go on."""
        for layer in cast(Sequence[_OwnLayer], self.layers):
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[rows], layer.values[rows]


def recording_cache() -> Cache:
    """An empty cache that keeps what the first pass of each layer writes."""
    return Cache(layer_class_to_replicate=_RecordingLayer)


def recorded_states(cache: Cache) -> tuple[KeyValue, ...]:
    """Keys and values of each layer that a recording cache kept, with their graph."""
    return tuple((layer.keys, layer.values) for layer in cast(Sequence[_RecordingLayer], cache.layers))
