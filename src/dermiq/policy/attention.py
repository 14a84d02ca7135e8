"""An attention function for transformers: completions attend to a shared prompt and to their own tokens.

Shapes: B prompts of P tokens; N completions, as many of each prompt, side by side; t new tokens of a completion (the
queries); S of its own tokens in all, or slots for them; `heads` query heads on kv heads of keys and values, d channels.

The arithmetic is in `dermiq.policy.prefix_attention`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PretrainedConfig

from dermiq.policy.caches import KeyValue
from dermiq.policy.prefix_attention import SharedAttention, decode_attention
from dermiq.schema import ModelError

IMPLEMENTATION = "dermiq_shared_prefix"
_UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some models add to scores


class SharedPrefix:
    """The prompts' keys and values, and the masks of completions that attend to them; a decoder's `shared_prefix`.

    Args:
        states: keys and values of each layer, [B, kv, P, d].
        visible: [B, P] bool, False = padding; None if there is none.
        first: index of the first query among its completion's own tokens: an int where S counts the tokens up to the
            last query, or [1] int64 on the device where S counts slots, those behind the query still empty.
    """

    def __init__(self, states: Sequence[KeyValue], visible: Tensor | None, first: int | Tensor = 0) -> None:
        # Rotary embeddings may leave keys in float32 under autocast; values are what the projection made.
        self.states = [(keys.to(values.dtype), values) for keys, values in states]
        self.visible = visible
        self.first = first
        self.used = False
        self._masks: dict[tuple[int, int, int | None], tuple[Tensor | None, Tensor | None]] = {}

    def move(self, first: int | Tensor) -> None:
        """Set the index of the next queries."""
        self.first = first
        self._masks.clear()

    def masks(self, queries: int, own: int, window: int | None) -> tuple[Tensor | None, Tensor | None]:
        """Masks of t queries, True = may attend: [B or 1, t or 1, P] over the prompt, [t, S] over their own tokens.

        None allows everything. `window` is the width of a sliding window that counts padding, as transformers does.
        """
        key = (queries, own, window)
        if key not in self._masks:  # once for all layers of a kind
            self._masks[key] = self._prompt_mask(queries, window), self._own_mask(queries, own, window)
        return self._masks[key]

    def _prompt_mask(self, queries: int, window: int | None) -> Tensor | None:
        padding = None if self.visible is None else self.visible[:, None]  # [B, 1, P]
        if window is None:
            return padding
        past = self.states[0][0].shape[-2]
        index = self._indices(queries) + past  # [t, 1], counted from the prompt's first token
        near = index - torch.arange(past, device=index.device) < window  # [t, P]
        return near[None] if padding is None else padding & near  # [B or 1, t, P]

    def _own_mask(self, queries: int, own: int, window: int | None) -> Tensor | None:
        if window is None and queries == 1 and isinstance(self.first, int):
            return None  # a single query is the last token itself, and nothing lies behind it
        index = self._indices(queries)
        distance = index - torch.arange(own, device=index.device)  # [t, S], negative = later than the query
        causal = distance >= 0
        return causal if window is None else causal & (distance < window)

    def _indices(self, queries: int) -> Tensor:
        """The queries' indices among their own tokens, [t, 1] int64."""
        return torch.arange(queries, device=self.states[0][0].device)[:, None] + self.first


@contextmanager
def implementation(config: PretrainedConfig, name: str = IMPLEMENTATION) -> Iterator[None]:
    """The attention implementation `name` for the layers of a text model with this configuration."""
    former = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = former


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    *,
    shared_prefix: SharedPrefix,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention output, query [N, heads, t, d], key and value [N, kv, S, d] -> [N, t, heads, d].

    Raises:
        ModelError: if the model changes its scores in a way that this function does not know.
    """
    unknown = [name for name in _UNKNOWN if options.get(name) is not None]
    if options.get("dropout"):
        unknown.append("attention_dropout")
    if unknown:
        raise ModelError(f"{type(module).__name__} asks for {unknown[0]}, which the shared prefix cannot do.")
    shared_prefix.used = True
    past_key, past_value = shared_prefix.states[module.layer_idx]  # [B, kv, P, d]
    masks = shared_prefix.masks(query.shape[2], key.shape[2], sliding_window)
    query, key = query.to(value.dtype), key.to(value.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    decodes = query.shape[2] == 1 and not torch.is_grad_enabled()
    attention = decode_attention if decodes else SharedAttention.apply
    output = attention(query, past_key, past_value, key, value, scale, *masks)  # [N, heads, t, d]
    return output.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, attend)
