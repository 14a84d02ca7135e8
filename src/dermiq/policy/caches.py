"""Key-value caches for transformers' decoders: one records a prompt, one holds completions' own tokens.

Shapes: B prompts of P tokens; N completions with slots for T tokens; kv heads of d channels.

Neither trims a sliding window: completions need the whole prompt, and the masks of `dermiq.policy.attention` do it.
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
    """A prompt's keys and values in one layer, [B, kv, P, d], stored once: the backward pass may run it again."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        if not self.is_initialized:
            self._hold(key_states, value_states)
        return key_states, value_states


@dataclass
class CacheSlots:
    """Slots for the keys and values of completions' own tokens, allocated once.

    `place` has one of two forms. An int: the cache returns the slots up to it, one more with each step. A tensor: the
    cache returns all T slots, and the mask hides the empty ones, so that every step has the same shapes and can be
    replayed as a CUDA graph.

    Attributes:
        tokens: T, the tokens of the longest completion.
        place: the slot of the next token, set by the decoding loop before each step: an int, or [1] int64.
    """

    tokens: int
    place: int | Tensor


class _CompletionLayer(_Layer):
    """Keys and values of completions' own tokens in one layer, [N, kv, T, d]; a step adds one token."""

    def __init__(self, slots: CacheSlots) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        """Store the states [N, kv, 1, d] of a step, and return those of all slots or of the slots up to it."""
        tokens, place = self._slots.tokens, self._slots.place
        if not self.is_initialized:
            rows, heads, _, channels = key_states.shape
            shape = (rows, heads, tokens, channels)
            self._hold(value_states.new_zeros(shape), value_states.new_zeros(shape))
        if isinstance(place, Tensor):
            self.keys.index_copy_(2, place, key_states.to(self.keys.dtype))
            self.values.index_copy_(2, place, value_states)
            return self.keys, self.values  # [N, kv, T, d]
        self.keys[:, :, place] = key_states[:, :, 0]
        self.values[:, :, place] = value_states[:, :, 0]
        return self.keys[:, :, : place + 1], self.values[:, :, : place + 1]  # [N, kv, place + 1, d]


class CompletionCache(Cache):
    """Cache of completions' own tokens, for a decoder of so many layers."""

    def __init__(self, layers: int, slots: CacheSlots) -> None:
        super().__init__(layers=[_CompletionLayer(slots) for _ in range(layers)])

    def keep(self, rows: Tensor) -> None:
        """Drop all completions but `rows` [n] int64."""
        for layer in cast(Sequence[_CompletionLayer], self.layers):
            if layer.is_initialized:
                layer.keys, layer.values = layer.keys[rows], layer.values[rows]


def recording_cache() -> Cache:
    """An empty cache that records the first forward pass of each layer."""
    return Cache(layer_class_to_replicate=_RecordingLayer)


def recorded_states(cache: Cache) -> tuple[KeyValue, ...]:
    """Keys and values [B, kv, P, d] of each layer of a recording cache, with their graph."""
    return tuple((layer.keys, layer.values) for layer in cast(Sequence[_RecordingLayer], cache.layers))
