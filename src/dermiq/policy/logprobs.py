"""Token log-probs from hidden states, the vocabulary in tiles: no [N, V] logits in memory.

The backward pass computes the logits again. Shapes: N tokens; H channels of a hidden state; V tokens in the vocabulary,
v of them in a tile.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dermiq.policy.precision import matmul_float32

PIECE = 2**24  # logits in memory at once: 64 MiB


class Output(NamedTuple):
    """Output layer: weight [V, H], bias [V] or None, banned [V] bool or None (True = never sampled)."""

    weight: Tensor
    bias: Tensor | None
    banned: Tensor | None

    def logits(self, states: Tensor, start: int, stop: int, temperature: float) -> Tensor:
        """Logits [N, v] float32 of tokens `start` to `stop` from hidden states [N, H], -inf where banned."""
        logits = matmul_float32(states, self.weight[start:stop].t())  # [N, v]
        if self.bias is not None:
            logits = logits + self.bias[start:stop]
        logits = logits / temperature
        return logits if self.banned is None else logits.masked_fill(self.banned[start:stop], -torch.inf)


def log_distribution(states: Tensor, output: Output, temperature: float = 1.0) -> Tensor:
    """Log-probs [N, V] float32 in nats, for the few rows of a decoding step."""
    return output.logits(states, 0, len(output.weight), temperature).log_softmax(-1)


def token_logprobs(
    states: Tensor, targets: Tensor, output: Output, temperature: float = 1.0, piece: int = PIECE
) -> tuple[Tensor, Tensor]:
    """Log-probs of the targets and entropies of their distributions, both [N] float32 in nats.

    Args:
        states: [N, H] hidden states that predict the targets.
        targets: [N] int64.
        output: the model's output layer.
        temperature: of the policy.
        piece: logits in memory at once, N*v.
    """
    found: tuple[Tensor, Tensor] = _TokenLogprobs.apply(
        states, output.weight, output.bias, output, targets, temperature, piece
    )
    return found


def _tiles(vocabulary: int, rows: int, piece: int) -> list[tuple[int, int]]:
    """Bounds [start, stop) of tiles of the vocabulary."""
    width = max(1, piece // max(1, rows))
    return [(start, min(start + width, vocabulary)) for start in range(0, vocabulary, width)]


class _TokenLogprobs(torch.autograd.Function):
    """Log-probs and entropies in one pass over tiles of the vocabulary (online softmax), and their gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        states: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        output: Output,
        targets: Tensor,
        temperature: float,
        piece: int,
    ) -> tuple[Tensor, Tensor]:
        chosen = states.new_zeros(len(states), dtype=torch.float32)  # [N], the targets' logits
        # [N] each, over the tiles so far: maximum, sum of exp(logit - peak), and that sum weighted by the logits.
        peak, total, weighted = torch.full_like(chosen, -torch.inf), chosen.clone(), chosen.clone()
        for start, stop in _tiles(len(weight), len(states), piece):
            logits = output.logits(states, start, stop, temperature)  # [N, v]
            here = (targets >= start) & (targets < stop)  # [N], targets within this tile
            found = logits.gather(-1, (targets - start).clamp(0, stop - start - 1)[:, None])[:, 0]  # [N]
            chosen = torch.where(here, found, chosen)
            higher = torch.maximum(peak, logits.amax(-1))
            shift = torch.where(torch.isinf(higher), 0.0, higher)  # -inf - -inf is NaN where all so far is banned
            shrink = (peak - shift).exp()
            powers = (logits - shift[:, None]).exp_()  # [N, v]
            total = total * shrink + powers.sum(-1)
            weighted = weighted * shrink + (powers * logits.clamp_(min=-1e30)).sum(-1)
            peak = higher
        normaliser = peak + total.log()  # [N], log of the sum of exp(logit)
        entropy = normaliser - weighted / total  # [N], -sum of p log p
        ctx.save_for_backward(states, weight, bias, targets, normaliser, entropy)
        ctx.output, ctx.temperature, ctx.piece = output, temperature, piece
        return chosen - normaliser, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        states, weight, bias, targets, normaliser, entropy = ctx.saved_tensors
        of_logprob, of_entropy = (gradient[:, None] for gradient in gradients)  # [N, 1]
        d_states = torch.zeros_like(states, dtype=torch.float32)  # [N, H]
        d_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None
        d_bias = torch.zeros_like(bias) if bias is not None and ctx.needs_input_grad[2] else None
        for start, stop in _tiles(len(weight), len(states), ctx.piece):
            logprobs = ctx.output.logits(states, start, stop, ctx.temperature).sub_(normaliser[:, None])
            powers = logprobs.exp()  # [N, v]
            # d logprob / d logits = onehot - p;  d entropy / d logits = -p (log p + entropy)
            d_logits = -powers * (of_logprob + of_entropy * (logprobs.clamp_(min=-1e30) + entropy[:, None]))
            here = ((targets >= start) & (targets < stop))[:, None]  # [N, 1]
            d_logits.scatter_add_(1, (targets - start).clamp(0, stop - start - 1)[:, None], of_logprob * here)
            d_logits /= ctx.temperature
            d_states += matmul_float32(d_logits.to(weight.dtype), weight[start:stop])  # [N, v] @ [v, H]
            if d_weight is not None:
                d_weight[start:stop] = matmul_float32(d_logits.t(), states.float())  # [v, N] @ [N, H]
            if d_bias is not None:
                d_bias[start:stop] = d_logits.sum(0)
        return d_states.to(states.dtype), d_weight, d_bias, None, None, None, None
