"""Key-value caches in the shape that transformers' decoders expect: what a prompt leaves, and a completion's own.

K and V of a layer are [rows, heads, tokens, head_dim]. None of them trims a sliding window: the masks of
`dermiq.attention` do, and a fork needs the whole prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
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


class _OwnLayer(_Layer):
    """Keys and values of a completion's own tokens, one more with each step, in room that is taken once."""

    def __init__(self, owner: OwnCache) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._owner = owner

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        if not self.is_initialized:
            rows, heads, _, channels = key_states.shape
            room = (rows, heads, self._owner.room, channels)
            self._hold(value_states.new_zeros(room), value_states.new_zeros(room))
        self.keys.index_copy_(2, self._owner.step, key_states.to(self.keys.dtype))
        self.values.index_copy_(2, self._owner.step, value_states)
        return self.keys[:, :, : self._owner.width], self.values[:, :, : self._owner.width]


class OwnCache(Cache):
    """Keys and values of the tokens that completions have written themselves.

    Args:
        layers: of the decoder.
        room: tokens of the longest completion.
        step: [1] int64, the place of the token that is written next; whoever owns the cache moves it on.

    Attributes:
        width: places that attention looks at; all of `room` keeps every step of the same shape.
    """

    def __init__(self, layers: int, room: int, step: Tensor) -> None:
        self.room, self.step, self.width = room, step, room
        super().__init__(layers=[_OwnLayer(self) for _ in range(layers)])

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
