"""Attention of many completions to one prompt, whose keys and values are neither copied nor repeated.

Shapes: B prompts of P tokens; N = B * G completions, those of a prompt side by side, each with t new tokens (the
queries) after S - t earlier ones; `heads` query heads on `kv` heads of keys and values, d channels each.

This is plain softmax attention over prompt and completion, computed in two blocks. Queries of all forks of a prompt
are rows of one matrix product with its keys, so that a group reads the prompt once (as bifurcated attention does in
decoding, Athiwaratkun et al. 2024, arXiv:2403.08845). The backward pass computes the probabilities again (as
FlashAttention does, Dao et al. 2022, arXiv:2205.14135), so no [t, P] matrix outlives its layer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, PretrainedConfig

from dermiq.policy.caches import KeyValue
from dermiq.policy.precision import matmul_float32
from dermiq.schema import ModelError

IMPLEMENTATION = "dermiq_shared_prefix"
_UNKNOWN = ("softcap", "s_aux", "position_bias")  # what some models add to scores


class SharedPrefix:
    """The prompts that a forward pass of completions goes on from; handed to the decoder as `shared_prefix`.

    Args:
        states: keys and values of each layer, [B, kv, P, d].
        visible: [B, P] bool, False = padding; None if there is none.
        first: place among a completion's own tokens of the first query: a number, or [] int64 on the device, where
            own keys and values have room for tokens to come.
    """

    def __init__(self, states: Sequence[KeyValue], visible: Tensor | None, first: int | Tensor = 0) -> None:
        # Rotary embeddings may leave keys in float32 under autocast; values are what the projection made.
        self.states = [(keys.to(values.dtype), values) for keys, values in states]
        self.visible = visible
        self.first = first
        self.used = False
        self._masks: dict[tuple[int, int, int | None], tuple[Tensor | None, Tensor | None]] = {}

    def move(self, first: int | Tensor) -> None:
        """The next queries stand at `first`."""
        self.first = first
        self._masks.clear()

    def masks(self, queries: int, own: int, window: int | None) -> tuple[Tensor | None, Tensor | None]:
        """Where t queries may look, True = yes: [B or 1, t or 1, P] at the prompt, [t, S] at their own tokens.

        None stands for everywhere. `window` is the width of a sliding window that counts padding, as transformers does.
        """
        key = (queries, own, window)
        if key not in self._masks:
            self._masks[key] = self._make_masks(*key)
        return self._masks[key]

    def _make_masks(self, queries: int, own: int, window: int | None) -> tuple[Tensor | None, Tensor | None]:
        at_prompt = None if self.visible is None else self.visible[:, None]
        if window is None and queries == 1 and isinstance(self.first, int):
            return at_prompt, None
        past = self.states[0][0].shape[-2]
        device = self.states[0][0].device
        place = torch.arange(queries, device=device)[:, None] + self.first
        distance = place - torch.arange(own, device=device)
        if window is None:
            return at_prompt, distance >= 0
        near = place + past - torch.arange(past, device=device) < window
        at_prompt = near[None] if at_prompt is None else at_prompt & near
        return at_prompt, (distance >= 0) & (distance < window)


@contextmanager
def implementation(config: PretrainedConfig, name: str = IMPLEMENTATION) -> Iterator[None]:
    """Let the layers of a text model with this configuration attend by `name`."""
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
    """An attention function for transformers: query [N, heads, t, d], key and value [N, kv, S, d] -> [N, t, heads, d].

    Raises:
        ModelError: if the model changes its scores in a way that this function does not know.
    """
    unknown = [name for name in _UNKNOWN if options.get(name) is not None]
    if options.get("dropout"):
        unknown.append("attention_dropout")
    if unknown:
        raise ModelError(f"{type(module).__name__} asks for {unknown[0]}, which the shared prefix cannot do.")
    shared_prefix.used = True
    past_key, past_value = shared_prefix.states[module.layer_idx]
    masks = shared_prefix.masks(query.shape[2], key.shape[2], sliding_window)
    query, key = query.to(value.dtype), key.to(value.dtype)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    decodes = query.shape[2] == 1 and not torch.is_grad_enabled()
    attention = _read if decodes else _SharedAttention.apply
    output = attention(query, past_key, past_value, key, value, scale, *masks)
    return output.transpose(1, 2), None


AttentionInterface.register(IMPLEMENTATION, attend)


class _Layout:
    """Queries [N, heads, t, d] as rows: alone [N * kv, rep * t, d], together per prompt [B * kv, G * rep * t, d]."""

    def __init__(self, query: Tensor, prompts: int, kv: int) -> None:
        self.rows, self.heads, self.tokens, _ = query.shape
        self.prompts, self.group, self.kv, self.rep = prompts, self.rows // prompts, kv, self.heads // kv

    def alone(self, tensor: Tensor) -> Tensor:
        """[N, heads, t, x] -> [N * kv, rep * t, x]."""
        return tensor.reshape(self.rows * self.kv, self.rep * self.tokens, tensor.shape[-1])

    def together(self, alone: Tensor) -> Tensor:
        """[N * kv, rep * t, x] -> [B * kv, G * rep * t, x]."""
        grouped = alone.reshape(self.prompts, self.group, self.kv, self.rep * self.tokens, alone.shape[-1])
        return grouped.transpose(1, 2).reshape(self.prompts * self.kv, -1, alone.shape[-1])

    def apart(self, together: Tensor) -> Tensor:
        """[B * kv, G * rep * t, x] -> [N * kv, rep * t, x]."""
        grouped = together.reshape(self.prompts, self.kv, self.group, self.rep * self.tokens, together.shape[-1])
        return grouped.transpose(1, 2).reshape(self.rows * self.kv, -1, together.shape[-1])

    def heads_of(self, alone: Tensor) -> Tensor:
        """[N * kv, rep * t, x] -> [N, heads, t, x]."""
        return alone.reshape(self.rows, self.heads, self.tokens, alone.shape[-1])

    def scores(
        self,
        query: Tensor,
        past_key: Tensor,
        key: Tensor,
        scale: float,
        at_prompt: Tensor | None,
        at_own: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries together and alone, and their scores, -inf where masks [B or 1, t or 1, P] and [t, S] are False."""
        alone = self.alone(query)
        together = self.together(alone)
        # In float32: a scaled query would be rounded to its dtype, unless the scale is a power of two.
        to_prompt = matmul_float32(together, past_key.flatten(0, 1).transpose(1, 2)).mul_(scale)
        to_own = matmul_float32(alone, key.flatten(0, 1).transpose(1, 2)).mul_(scale)
        if at_prompt is not None:
            shape = (self.prompts, self.kv, self.group * self.rep, self.tokens, -1)
            to_prompt.view(shape).masked_fill_(~at_prompt[:, None, None], -torch.inf)
        if at_own is not None:
            to_own.view(self.rows * self.kv, self.rep, self.tokens, -1).masked_fill_(~at_own, -torch.inf)
        return together, alone, to_prompt, to_own


class _SharedAttention(torch.autograd.Function):
    """softmax([q kP', q k']) [vP, v], the prompt's keys kP and values vP common to a group."""

    @staticmethod
    def forward(
        ctx: Any,
        query: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        at_prompt: Tensor | None,
        at_own: Tensor | None,
    ) -> Tensor:
        layout = _Layout(query, past_key.shape[0], key.shape[1])
        *_, to_prompt, to_own = layout.scores(query, past_key, key, scale, at_prompt, at_own)
        peak = torch.maximum(layout.apart(to_prompt.amax(-1, keepdim=True)), to_own.amax(-1, keepdim=True))
        to_prompt.sub_(layout.together(peak)).exp_()
        to_own.sub_(peak).exp_()
        total = layout.apart(to_prompt.sum(-1, keepdim=True)) + to_own.sum(-1, keepdim=True)
        dtype = value.dtype
        output = layout.apart(matmul_float32(to_prompt.to(dtype), past_value.flatten(0, 1)))
        output = (output + matmul_float32(to_own.to(dtype), value.flatten(0, 1))) / total
        ctx.save_for_backward(query, past_key, past_value, key, value, output, peak + total.log(), at_prompt, at_own)
        ctx.scale = scale
        return layout.heads_of(output).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, past_key, past_value, key, value, output, lse, at_prompt, at_own = ctx.saved_tensors
        layout = _Layout(query, past_key.shape[0], key.shape[1])
        together, alone, to_prompt, to_own = layout.scores(query, past_key, key, ctx.scale, at_prompt, at_own)
        to_prompt.sub_(layout.together(lse)).exp_()
        to_own.sub_(lse).exp_()
        d_alone = layout.alone(gradients[0])
        d_together = layout.together(d_alone)
        d_past_value = _transposed(to_prompt, d_together)
        d_value = _transposed(to_own, d_alone)
        shift = (d_alone.float() * output).sum(-1, keepdim=True)
        d_prompt = matmul_float32(d_together, past_value.flatten(0, 1).transpose(1, 2))
        d_own = matmul_float32(d_alone, value.flatten(0, 1).transpose(1, 2))
        d_prompt.sub_(layout.together(shift)).mul_(to_prompt).mul_(ctx.scale)
        d_own.sub_(shift).mul_(to_own).mul_(ctx.scale)
        dtype = query.dtype
        d_query = layout.apart(matmul_float32(d_prompt.to(dtype), past_key.flatten(0, 1)))
        d_query += matmul_float32(d_own.to(dtype), key.flatten(0, 1))
        return (
            layout.heads_of(d_query).to(dtype),
            _transposed(d_prompt, together).view_as(past_key),
            d_past_value.view_as(past_value),
            _transposed(d_own, alone).view_as(key),
            d_value.view_as(value),
            None,
            None,
            None,
        )


def _transposed(left: Tensor, right: Tensor) -> Tensor:
    """Left' @ right in the dtype of `right`, for gradients of keys and values."""
    return matmul_float32(left.to(right.dtype).transpose(1, 2), right).to(right.dtype)


def _read(
    query: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    at_prompt: Tensor | None,
    at_own: Tensor | None,
) -> Tensor:
    """The forward pass of `_SharedAttention` in fewer steps, for few queries."""
    layout = _Layout(query, past_key.shape[0], key.shape[1])
    *_, to_prompt, to_own = layout.scores(query, past_key, key, scale, at_prompt, at_own)
    weights = torch.cat([to_prompt, layout.together(to_own)], dim=-1).softmax(-1).to(value.dtype)
    to_prompt, to_own = weights.split([past_key.shape[-2], key.shape[-2]], dim=-1)
    output = layout.apart(matmul_float32(to_prompt, past_value.flatten(0, 1)))
    return layout.heads_of((output + matmul_float32(layout.apart(to_own), value.flatten(0, 1))).to(value.dtype))
