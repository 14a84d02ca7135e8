"""Key-value caches of the shared prefix, in the shape that transformers' decoders expect.

K and V of a layer are [rows, heads, tokens, head_dim]. None of them trims a sliding window: the model's own
masks do, and a fork needs the whole prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer

__all__ = ["Cache", "KeyValue", "decoding_cache", "fork_cache", "recorded_states", "recording_cache"]

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


class _ForkLayer(_Layer):
    """A prompt's keys and values that completions read and never write."""

    def __init__(self, keys: Tensor, values: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._hold(keys, values)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        return torch.cat([self.keys, key_states], dim=-2), torch.cat([self.values, value_states], dim=-2)


class _DecodingLayer(_Layer):
    """A prompt's keys and values followed by room for new ones, allocated once."""

    def __init__(self, keys: Tensor, values: Tensor, room: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._length = keys.shape[-2]
        self._buffers = tuple(
            torch.cat([past, past.new_empty(*past.shape[:-2], room, past.shape[-1])], dim=-2) for past in (keys, values)
        )
        self._show()

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> KeyValue:
        end = self._length + key_states.shape[-2]
        for buffer, new in zip(self._buffers, (key_states, value_states), strict=True):
            buffer[..., self._length : end, :] = new
        self._length = end
        self._show()
        return self.keys, self.values

    def _show(self) -> None:
        self._hold(*(buffer[..., : self._length, :] for buffer in self._buffers))


def recording_cache() -> Cache:
    """An empty cache that keeps what the first pass of each layer writes."""
    return Cache(layer_class_to_replicate=_RecordingLayer)


def recorded_states(cache: Cache) -> tuple[KeyValue, ...]:
    """Keys and values of each layer that a recording cache kept, with their graph."""
    return tuple((layer.keys, layer.values) for layer in cast(Sequence[_RecordingLayer], cache.layers))


def fork_cache(states: Sequence[KeyValue], rows: Tensor) -> Cache:
    """A read-only cache of the prompts `rows` [N]; gradients reach `states`."""
    return Cache(layers=[_ForkLayer(_take(k, rows), _take(v, rows)) for k, v in states])


def decoding_cache(states: Sequence[KeyValue], rows: Tensor, room: int) -> Cache:
    """A growing cache of the prompts `rows` [N] with room for `room` new tokens."""
    return Cache(layers=[_DecodingLayer(_take(k, rows), _take(v, rows), room) for k, v in states])


def _take(past: Tensor, rows: Tensor) -> Tensor:
    """The prompts `rows`; a single prompt is not copied."""
    return past.expand(len(rows), -1, -1, -1) if past.shape[0] == 1 else past.index_select(0, rows)
