"""Losses: pure functions of tensors that return (scalar, statistics).

Legend: N completions, T tokens of a completion, mask [N, T] bool (True = counts). Log-probs are float32 in nats.
Token weights [N, T] carry the normalisation, so a loss is a plain weighted sum and micro-batches add up exactly;
the pair weights [B] of the preference losses do the same.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

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


def counted(token_weights: Callable[[Tensor, int], Tensor], mask: Tensor, max_new_tokens: int) -> Tensor:
    """What token weights divide a batch by: its completions, or its tokens for `per_token`; an integer as float32.

    Batches that share an optimiser step count by it, so that they weigh as one batch of all. A completion of one token
    that joined a batch of count c would weigh 1 / (c + 1) of what it weighs alone. Weights that are not normalised over
    the batch count completions.
    """
    probe = torch.zeros_like(mask[:1])
    probe[0, 0] = True
    alone = token_weights(probe, max_new_tokens)[0, 0]
    joined = token_weights(torch.cat([mask, probe]), max_new_tokens)[-1, 0]
    count = (alone / joined - 1).round()
    return torch.where(count >= 1, count, float(len(mask)))


def kl_k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Schulman's k3 estimate of KL(policy || reference) per token [N, T], the exponent clamped before `exp`.

    k3 = exp(d) - d - 1 with d = ref - policy: never negative, 0 only where both agree. Unclamped it overflows
    on tokens that the policy has all but ruled out.
    """
    difference = (ref_logprobs - logprobs).clamp(-KL_EXPONENT_LIMIT, KL_EXPONENT_LIMIT)
    return difference.exp() - difference - 1


# (logprobs [N, T], old_logprobs [N, T], advantages [N], weights [N, T], clip_low, clip_high) -> what to raise for each
# token [N, T], and which tokens are clipped [N, T] bool.
Surrogate = Callable[[Tensor, Tensor, Tensor, Tensor, float, float], tuple[Tensor, Tensor]]


def clipped_tokens(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weights: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """Each token's own ratio (GRPO, arXiv:2402.03300, eq. 3), with two bounds (DAPO, arXiv:2503.14476, eq. 8).

    With r = exp(logprobs - old_logprobs): min(r A, clip(r, 1 - clip_low, 1 + clip_high) A).
    """
    return _clipped((logprobs - old_logprobs).exp(), advantages, clip_low, clip_high)


def clipped_sequences(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weights: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """One ratio for the whole completion (GSPO, Zheng et al. 2025, arXiv:2507.18071, eqs. 5 and 7).

    With s the exponential of the mean of logprobs - old_logprobs over the tokens of non-zero weight, every token gets
    min(s A, clip(s, 1 - clip_low, 1 + clip_high) A). The weights `per_sequence` make the paper's objective of it. A
    mean moves far less than a token: the paper clips at 3e-4 and 4e-4.
    """
    counted = (weights > 0).float()
    mean = ((logprobs - old_logprobs) * counted).sum(-1, keepdim=True) / counted.sum(-1, keepdim=True).clamp(min=1)
    objective, is_clipped = _clipped(mean.exp(), advantages, clip_low, clip_high)
    return objective.expand_as(logprobs), is_clipped.expand_as(logprobs)


def clipped_weights(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, weights: Tensor, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """The clipped ratio as a constant factor: clipped tokens learn too (CISPO, MiniMax-M1, arXiv:2506.13585, eq. 4).

    With r = exp(logprobs - old_logprobs) and sg = no gradient: sg(clip(r, 1 - clip_low, 1 + clip_high)) A logprobs.
    The paper has no lower bound, which is clip_low = 1. The value says little; the gradient is that of a weighted
    policy gradient.
    """
    ratio = (logprobs - old_logprobs).detach().exp()
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high)
    return clipped * advantages[:, None] * logprobs, clipped != ratio


def _clipped(ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> tuple[Tensor, Tensor]:
    """The pessimistic one of r A and clip(r) A for ratios [N, T], and where clipping made the difference."""
    whole = ratio * advantages[:, None]
    clipped = ratio.clamp(1 - clip_low, 1 + clip_high) * advantages[:, None]
    return torch.minimum(whole, clipped), clipped < whole


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor,
    *,
    surrogate: Surrogate = clipped_tokens,
    clip_low: float = 0.2,
    clip_high: float = 0.2,
    ref_logprobs: Tensor | None = None,
    kl_coef: float = 0.0,
    entropy: Tensor | None = None,
    entropy_coef: float = 0.0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A surrogate of the policy's return, with a KL penalty and an entropy bonus.

        loss = sum_it w_it * ( -surrogate_it + kl_coef k3 - entropy_coef H )

    Args:
        logprobs: [N, T] of the policy, with gradient.
        old_logprobs: [N, T] of the policy that sampled.
        advantages: [N].
        weights: [N, T] token weights, 0 where masked (`constant_length`, `per_sequence`, `per_token`).
        surrogate: what to raise for each token: `clipped_tokens`, `clipped_sequences` or `clipped_weights`.
        clip_low: the ratio's lower bound is 1 - clip_low.
        clip_high: the ratio's upper bound is 1 + clip_high.
        ref_logprobs: [N, T] of the reference; needed where kl_coef > 0.
        kl_coef: weight of the KL penalty (k3).
        entropy: [N, T] of the policy's token distributions; needed where entropy_coef > 0.
        entropy_coef: weight of the entropy bonus.

    Returns:
        The scalar loss, and detached sums over tokens under the same weights: `clip_fraction`, `kl`, `entropy`.
    """
    objective, is_clipped = surrogate(logprobs, old_logprobs, advantages, weights, clip_low, clip_high)
    total = (weights * -objective).sum()
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


def dpo_sigmoid(
    logprobs: Tensor, ref_logprobs: Tensor, weights: Tensor, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Direct preference optimisation (Rafailov et al. 2023, arXiv:2305.18290, eq. 7).

    With h = (logprobs - ref_logprobs)[0] - (logprobs - ref_logprobs)[1] and e = label_smoothing:

        loss = sum_i w_i * ( -(1 - e) log sigmoid(beta h_i) - e log sigmoid(-beta h_i) )

    Above 0, e makes it conservative DPO (Mitchell 2023): h has an optimum, at sigmoid(beta h) = 1 - e.

    Args:
        logprobs: [2, B] of whole completions under the policy, chosen then rejected, with gradient.
        ref_logprobs: [2, B] under the reference.
        weights: [B] pair weights; 1 / B gives the mean.
        beta: how strongly the policy is held to the reference; a reward is beta times a log-ratio.
        label_smoothing: the probability that a pair is the wrong way round, in [0, 0.5).

    Returns:
        The scalar loss, and detached means over pairs: `chosen_reward`, `rejected_reward`, `reward_margin`
        (their difference) and `accuracy` (the share of pairs with a positive one).
    """
    logits, stats = _reward_margins(logprobs, ref_logprobs, beta)
    losses = -(1 - label_smoothing) * logsigmoid(logits) - label_smoothing * logsigmoid(-logits)
    return (weights * losses).sum(), stats


def dpo_robust(
    logprobs: Tensor, ref_logprobs: Tensor, weights: Tensor, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """DPO debiased for pairs that are the wrong way round (Chowdhury et al. 2024, arXiv:2403.00409).

    With h and e as in `dpo_sigmoid`, whose arguments and statistics these are:

        loss = sum_i w_i * ( -(1 - e) log sigmoid(beta h_i) + e log sigmoid(-beta h_i) ) / (1 - 2 e)

    Its mean over labels that are flipped with probability e is the loss of the true labels.
    """
    logits, stats = _reward_margins(logprobs, ref_logprobs, beta)
    losses = -(1 - label_smoothing) * logsigmoid(logits) + label_smoothing * logsigmoid(-logits)
    return (weights * losses).sum() / (1 - 2 * label_smoothing), stats


def dpo_ipo(
    logprobs: Tensor, ref_logprobs: Tensor, weights: Tensor, *, beta: float = 0.1, label_smoothing: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Identity preference optimisation (Azar et al. 2023, arXiv:2310.12036, eq. 17; beta is the paper's tau).

    With h and e as in `dpo_sigmoid`, whose arguments and statistics these are:

        loss = sum_i w_i * ( (1 - e) (h_i - 1 / (2 beta))^2 + e (h_i + 1 / (2 beta))^2 )

    h has an optimum, at (1 - 2 e) / (2 beta). Sums over tokens make the loss grow with the completions' lengths:
    the authors' own results, and TRL's `ipo`, are with log-probs divided by length.
    """
    logits, stats = _reward_margins(logprobs, ref_logprobs, beta)
    margin, target = logits / beta, 1 / (2 * beta)
    losses = (1 - label_smoothing) * (margin - target) ** 2 + label_smoothing * (margin + target) ** 2
    return (weights * losses).sum(), stats


def _reward_margins(logprobs: Tensor, ref_logprobs: Tensor, beta: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Beta h [B], with gradient, and the statistics of a preference loss."""
    chosen, rejected = beta * (logprobs - ref_logprobs)
    margins = chosen - rejected
    means = {"chosen_reward": chosen, "rejected_reward": rejected, "reward_margin": margins, "accuracy": margins > 0}
    return margins, {name: value.detach().float().mean() for name, value in means.items()}
