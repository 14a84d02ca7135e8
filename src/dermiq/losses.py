"""Every objective as a pure function of tensors that returns (scalar, statistics).

Legend: N completions, T tokens of a completion, mask [N, T] bool (True = counts). Log-probs are float32 in nats.
Token weights [N, T] carry the normalisation, so a loss is a plain weighted sum and micro-batches add up exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor

KL_EXPONENT_LIMIT = 10.0


def constant_length(mask: Tensor, max_new_tokens: int) -> Tensor:
    """Token weights 1 / (N * max_new_tokens): no bias by length (Dr. GRPO, Liu et al. 2025, arXiv:2503.20783)."""
    return mask.float() / (mask.shape[0] * max_new_tokens)


def per_sequence(mask: Tensor, max_new_tokens: int) -> Tensor:
    """Token weights 1 / (N * |o_i|): the mean over sequences of means over tokens (GRPO, arXiv:2402.03300, eq. 3)."""
    return mask.float() / mask.sum(-1, keepdim=True).clamp(min=1) / mask.shape[0]


def per_token(mask: Tensor, max_new_tokens: int) -> Tensor:
    """Token weights 1 / sum_i |o_i|: every token counts alike (DAPO, Yu et al. 2025, arXiv:2503.14476, eq. 12)."""
    return mask.float() / mask.sum().clamp(min=1)


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) per token [N, T], the exponent clamped before `exp`.

    k3 = exp(d) - d - 1 with d = ref - policy: never negative, 0 only where both agree. Unclamped it overflows
    on tokens that the policy has all but ruled out.
    """
    difference = (ref_logprobs - logprobs).clamp(-KL_EXPONENT_LIMIT, KL_EXPONENT_LIMIT)
    return difference.exp() - difference - 1


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Clipped surrogate of GRPO (Shao et al. 2024, arXiv:2402.03300, eq. 3), with DAPO's two clip bounds.

    With r = exp(logprobs - old_logprobs):

        loss = sum_it w_it * ( -min(r A_i, clip(r, 1 - clip_low, 1 + clip_high) A_i) + kl_coef k3 - entropy_coef H )

    Args:
        logprobs: [N, T] of the policy, with gradient.
        old_logprobs: [N, T] of the policy that sampled.
        advantages: [N].
        weights: [N, T] token weights, 0 where masked (`constant_length`, `per_sequence`, `per_token`).
        clip_low: the ratio's lower bound is 1 - clip_low.
        clip_high: the ratio's upper bound is 1 + clip_high.
        ref_logprobs: [N, T] of the reference; needed where kl_coef > 0.
        kl_coef: weight of the k3 leash.
        entropy: [N, T] of the policy's token distributions; needed where entropy_coef > 0.
        entropy_coef: weight of the entropy bonus.

    Returns:
        The scalar loss, and detached sums over tokens under the same weights: `clip_fraction`, `kl`, `entropy`.
    """
    ratio = (logprobs - old_logprobs).exp()
    advantage = advantages[:, None]
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    objective = torch.minimum(ratio * advantage, clipped * advantage)
    total = (weights * -objective).sum()
    is_clipped = (clipped * advantage < ratio * advantage).float()
    stats = {"clip_fraction": (weights * is_clipped).sum()}
    if ref_logprobs is not None:
        kl = (weights * kl_k3(logprobs, ref_logprobs)).sum()
        total = total + kl_coef * kl
        stats["kl"] = kl
    if entropy is not None:
        bonus = (weights * entropy).sum()
        total = total - entropy_coef * bonus
        stats["entropy"] = bonus
    return total, {name: value.detach() for name, value in stats.items()}


def sft_loss(logprobs: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy on the assistant's tokens: the mean of -log p over mask.

    Args:
        logprobs: [N, T] of the target tokens, with gradient.
        mask: [N, T] bool.

    Returns:
        The scalar loss in nats per token, and `perplexity` = exp(loss).
    """
    loss = -(logprobs * mask).sum() / mask.sum().clamp(min=1)
    return loss, {"perplexity": loss.detach().exp()}
