"""Softmax attention of many completions to one prompt, whose keys and values are neither copied nor repeated.

Shapes: B prompts of P tokens; G completions of each, N = B*G, those of a prompt side by side; t new tokens of a
completion (the queries); S of its own tokens in all; heads = kv*rep query heads on kv heads of keys and values, d
channels; x any last dimension.

Attention over prompt and completion is computed in two blocks. The queries of all completions of a prompt are rows of
one matrix product with its keys, so that a group reads the prompt once (as bifurcated attention does in decoding,
Athiwaratkun et al. 2024, arXiv:2403.08845). The backward pass computes the probabilities again (as FlashAttention does,
Dao et al. 2022, arXiv:2205.14135), so no [t, P] matrix outlives its layer.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dermiq.policy.precision import matmul_float32


class _Layout:
    """Reshapes between heads, rows of one completion, and rows of all completions of a prompt."""

    def __init__(self, query: Tensor, prompts: int, kv: int) -> None:
        self.rows, self.heads, self.tokens, _ = query.shape
        self.prompts, self.group, self.kv, self.rep = prompts, self.rows // prompts, kv, self.heads // kv

    def per_completion(self, tensor: Tensor) -> Tensor:
        """[N, heads, t, x] -> [N*kv, rep*t, x]."""
        return tensor.reshape(self.rows * self.kv, self.rep * self.tokens, tensor.shape[-1])

    def per_prompt(self, single: Tensor) -> Tensor:
        """[N*kv, rep*t, x] -> [B*kv, G*rep*t, x]."""
        split = single.reshape(self.prompts, self.group, self.kv, self.rep * self.tokens, single.shape[-1])
        return split.transpose(1, 2).reshape(self.prompts * self.kv, -1, single.shape[-1])

    def ungroup(self, grouped: Tensor) -> Tensor:
        """[B*kv, G*rep*t, x] -> [N*kv, rep*t, x]."""
        split = grouped.reshape(self.prompts, self.kv, self.group, self.rep * self.tokens, grouped.shape[-1])
        return split.transpose(1, 2).reshape(self.rows * self.kv, -1, grouped.shape[-1])

    def split_heads(self, single: Tensor) -> Tensor:
        """[N*kv, rep*t, x] -> [N, heads, t, x]."""
        return single.reshape(self.rows, self.heads, self.tokens, single.shape[-1])

    def scores(
        self,
        query: Tensor,
        past_key: Tensor,
        key: Tensor,
        scale: float,
        at_prompt: Tensor | None,
        at_own: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Queries per prompt and per completion, and the scores of each, -inf where a mask is False."""
        single = self.per_completion(query)  # [N*kv, rep*t, d]
        grouped = self.per_prompt(single)  # [B*kv, G*rep*t, d]
        # Scaled in float32: a scaled query would be rounded to its dtype, unless the scale is a power of two.
        to_prompt = matmul_float32(grouped, past_key.flatten(0, 1).transpose(1, 2)).mul_(scale)  # [B*kv, G*rep*t, P]
        to_own = matmul_float32(single, key.flatten(0, 1).transpose(1, 2)).mul_(scale)  # [N*kv, rep*t, S]
        if at_prompt is not None:
            shape = (self.prompts, self.kv, self.group * self.rep, self.tokens, -1)
            to_prompt.view(shape).masked_fill_(~at_prompt[:, None, None], -torch.inf)  # [B, kv, G*rep, t, P]
        if at_own is not None:
            to_own.view(self.rows * self.kv, self.rep, self.tokens, -1).masked_fill_(~at_own, -torch.inf)
        return grouped, single, to_prompt, to_own


class SharedAttention(torch.autograd.Function):
    """softmax([q kP', q k']) [vP, v], the prompt's keys kP and values vP common to a group: [N, heads, t, d].

    Arguments of `apply`: query [N, heads, t, d]; past_key and past_value [B, kv, P, d]; key and value [N, kv, S, d];
    the factor of the scores; bool masks [B or 1, t or 1, P] and [t, S], True = may attend, None = everywhere.
    """

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
        """The output in the dtype of `value`."""
        layout = _Layout(query, past_key.shape[0], key.shape[1])
        *_, to_prompt, to_own = layout.scores(query, past_key, key, scale, at_prompt, at_own)
        # One softmax over both blocks: their common maximum and sum, [N*kv, rep*t, 1].
        peak = torch.maximum(layout.ungroup(to_prompt.amax(-1, keepdim=True)), to_own.amax(-1, keepdim=True))
        to_prompt.sub_(layout.per_prompt(peak)).exp_()  # [B*kv, G*rep*t, P]
        to_own.sub_(peak).exp_()  # [N*kv, rep*t, S]
        total = layout.ungroup(to_prompt.sum(-1, keepdim=True)) + to_own.sum(-1, keepdim=True)  # [N*kv, rep*t, 1]
        dtype = value.dtype
        output = layout.ungroup(matmul_float32(to_prompt.to(dtype), past_value.flatten(0, 1)))  # [N*kv, rep*t, d]
        output = (output + matmul_float32(to_own.to(dtype), value.flatten(0, 1))) / total
        ctx.save_for_backward(query, past_key, past_value, key, value, output, peak + total.log(), at_prompt, at_own)
        ctx.scale = scale
        return layout.split_heads(output).to(dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, past_key, past_value, key and value, from that of the output."""
        query, past_key, past_value, key, value, output, lse, at_prompt, at_own = ctx.saved_tensors
        layout = _Layout(query, past_key.shape[0], key.shape[1])
        grouped, single, to_prompt, to_own = layout.scores(query, past_key, key, ctx.scale, at_prompt, at_own)
        to_prompt.sub_(layout.per_prompt(lse)).exp_()  # probabilities [B*kv, G*rep*t, P]
        to_own.sub_(lse).exp_()  # probabilities [N*kv, rep*t, S]
        d_single = layout.per_completion(gradients[0])  # [N*kv, rep*t, d]
        d_grouped = layout.per_prompt(d_single)  # [B*kv, G*rep*t, d]
        d_past_value = _transposed_product(to_prompt, d_grouped)  # [B*kv, P, d]
        d_value = _transposed_product(to_own, d_single)  # [N*kv, S, d]
        # d score = p (d p - shift), where shift is the sum over keys of p d p = d output . output.
        shift = (d_single.float() * output).sum(-1, keepdim=True)  # [N*kv, rep*t, 1]
        d_prompt = matmul_float32(d_grouped, past_value.flatten(0, 1).transpose(1, 2))  # [B*kv, G*rep*t, P]
        d_own = matmul_float32(d_single, value.flatten(0, 1).transpose(1, 2))  # [N*kv, rep*t, S]
        d_prompt.sub_(layout.per_prompt(shift)).mul_(to_prompt).mul_(ctx.scale)
        d_own.sub_(shift).mul_(to_own).mul_(ctx.scale)
        dtype = query.dtype
        d_query = layout.ungroup(matmul_float32(d_prompt.to(dtype), past_key.flatten(0, 1)))  # [N*kv, rep*t, d]
        d_query += matmul_float32(d_own.to(dtype), key.flatten(0, 1))
        return (
            layout.split_heads(d_query).to(dtype),
            _transposed_product(d_prompt, grouped).view_as(past_key),  # [B*kv, P, d] -> [B, kv, P, d]
            d_past_value.view_as(past_value),
            _transposed_product(d_own, single).view_as(key),  # [N*kv, S, d] -> [N, kv, S, d]
            d_value.view_as(value),
            None,
            None,
            None,
        )


def _transposed_product(left: Tensor, right: Tensor) -> Tensor:
    """Left' @ right, [b, n, k] and [b, n, d] -> [b, k, d] in the dtype of `right`: a gradient of keys or values."""
    return matmul_float32(left.to(right.dtype).transpose(1, 2), right).to(right.dtype)


def decode_attention(
    query: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    at_prompt: Tensor | None,
    at_own: Tensor | None,
) -> Tensor:
    """The forward pass of `SharedAttention` in fewer operators, for the single query of a decoding step."""
    layout = _Layout(query, past_key.shape[0], key.shape[1])
    *_, to_prompt, to_own = layout.scores(query, past_key, key, scale, at_prompt, at_own)
    scores = torch.cat([to_prompt, layout.per_prompt(to_own)], dim=-1)  # [B*kv, G*rep*t, P+S]
    to_prompt, to_own = scores.softmax(-1).to(value.dtype).split([past_key.shape[-2], key.shape[-2]], dim=-1)
    output = layout.ungroup(matmul_float32(to_prompt, past_value.flatten(0, 1)))  # [N*kv, rep*t, d]
    output = output + matmul_float32(layout.ungroup(to_own), value.flatten(0, 1))
    return layout.split_heads(output.to(value.dtype))
