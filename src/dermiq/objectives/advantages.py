"""Advantages of G completions of each of B prompts: pure functions of their rewards and outcomes.

Each estimator is a frozen set of options with one call: `advantage(graded)` -> [B, G] float32.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from dermiq.ranges import check_numbers


@dataclass(frozen=True)
class Graded:
    """Rewards, outcomes and confidences of G completions of each of B prompts, without gradients and on one device.

    Attributes:
        rewards: [B, G] float32 totals.
        correct: [B, G] bool, whether the diagnosis is right.
        confidence: [B, G] float32, the policy's own length-normalised probability of the completion.
        terms: [K, B, G] float32, what each reward term adds to the total, weight and gates included.
        weights: [K] float32 of the terms.
        strata: the subgroup of each prompt's patient (the skin type), None where unknown.
    """

    rewards: Tensor
    correct: Tensor
    confidence: Tensor
    terms: Tensor
    weights: Tensor
    strata: tuple[str | None, ...]


class Advantage(ABC):
    """An advantage estimator of the GRPO module."""

    @abstractmethod
    def __call__(self, graded: Graded) -> Tensor:
        """Advantages [B, G]."""


def uniform_groups(values: Tensor) -> Tensor:
    """[..., B] bool: all of a group's values [..., B, G] are equal (never decided by a standard deviation)."""
    return (values == values[..., :1]).all(dim=-1)


def _centred(values: Tensor, scale_by_std: bool) -> Tensor:
    """Values [..., G] minus their group's mean, over its unbiased std if so set; exact zeros in uniform groups."""
    centred = values - values.mean(dim=-1, keepdim=True)
    if scale_by_std:
        correction = min(1, values.shape[-1] - 1)
        centred = centred / (values.std(dim=-1, keepdim=True, correction=correction) + 1e-6)
    return centred.masked_fill(uniform_groups(values)[..., None], 0.0)


@dataclass(frozen=True)
class GroupRelative(Advantage):
    """A = r - mean(r), divided by std(r) if so set (GRPO, arXiv:2402.03300; without std: Dr. GRPO, 2503.20783).

    Worked case, rewards (1, 0, 0, 0): r - mean = (.75, -.25, -.25, -.25); the unbiased std is 0.5, so with
    scaling (1.5, -.5, -.5, -.5). A uniform group gives exact zeros.

    Attributes:
        scale_by_std: divide by the group's unbiased standard deviation.
    """

    scale_by_std: bool = False

    def __call__(self, graded: Graded) -> Tensor:
        """Advantages [B, G]; see the class."""
        return _centred(graded.rewards, self.scale_by_std)


@dataclass(frozen=True)
class LeaveOneOut(Advantage):
    """A_i = r_i - mean of the others' rewards (RLOO, Ahmadian et al. 2024, arXiv:2402.14740, eq. 8).

    Worked case, rewards (1, 0, 0): A = (1 - 0, 0 - 1/2, 0 - 1/2) = (1, -.5, -.5).
    """

    def __call__(self, graded: Graded) -> Tensor:
        """Advantages [B, G]; see the class."""
        rewards = graded.rewards
        group_size = rewards.shape[1]
        others = (rewards.sum(dim=1, keepdim=True) - rewards) / max(group_size - 1, 1)
        return (rewards - others).masked_fill(uniform_groups(rewards)[:, None], 0.0)


@dataclass(frozen=True)
class DecoupledNormalisation(Advantage):
    """Each reward term is normalised within its group on its own (GDPO, Liu et al. 2026, arXiv:2601.05242).

    With r_k what term k pays a completion, w_k its weight, and mean and unbiased std over the group:

        A = sum_k w_k (r_k - mean(r_k)) / std(r_k),  divided by the unbiased std of all A of the batch

    Dividing a term by its std takes any factor from it, so the weights come afterwards, as in the paper. There the
    batch's mean of A is subtracted too; it is 0 by construction. A term that is uniform in a group says nothing there,
    and is left out. The batch is that of one process.

    Worked case, weights 1 and 1/2, two groups of two. In the first both terms favour the first answer, r = (1, .5) and
    (0, 0); in the second they disagree, (1, 0) and (0, .5). Each term becomes +-1/sqrt(2), so A = +-1.5/sqrt(2) in the
    first group and +-.5/sqrt(2) in the second. The squares add up to 2 * 1.125 + 2 * .125 = 2.5, the std is
    sqrt(2.5 / 3) = .9129: A = +-1.1619 and +-.3873. GRPO divides the totals (1.5, 0) and (1, .5) by their stds, and
    makes +-1/sqrt(2) of both.
    """

    def __call__(self, graded: Graded) -> Tensor:
        """Advantages [B, G]; see the class."""
        # A term's weight is in `terms` already: normalising keeps its sign and loses its size.
        sizes = graded.weights.abs()[:, None, None]
        advantages = (sizes * _centred(graded.terms, scale_by_std=True)).sum(dim=0)
        correction = min(1, advantages.numel() - 1)
        return advantages / (advantages.std(correction=correction) + 1e-6)


@dataclass(frozen=True)
class PositiveOnly(Advantage):
    """A = 1 for a right answer, 0 for a wrong one: on-policy rejection-sampled fine-tuning.

    The policy imitates those of its own answers that are right (RAFT, Dong et al. 2023, arXiv:2304.06767, which keeps
    the best of each group), and learns nothing from mistakes.

    Worked case, right, wrong, right: A = (1, 0, 1).
    """

    def __call__(self, graded: Graded) -> Tensor:
        """Advantages [B, G]; see the class."""
        return graded.correct.float()


@dataclass(frozen=True)
class GroupFair(Advantage):
    """Another estimator's advantages, weighted up for strata that are rare in the batch or do badly.

    In the spirit of FairGRPO (Dai et al. 2025, arXiv:2510.19893), and simpler: it keeps no history and guesses no
    strata. With n_s prompts and the share p_s of right answers of stratum s in the batch, its prompts weigh

        ((2 - p_s) / n_s) ^ strength,  rescaled to mean 1 over the prompts whose stratum is known

    At strength 1 a stratum as a whole counts 1 plus its error rate, however many prompts it has. Prompts of unknown
    stratum weigh 1; so do all where the batch has one stratum alone, so batches need several prompts. The batch is
    that of one process.

    Worked case, strata (light, light, light, dark), half of the answers right in both: 1.5 / 3 = .5 and 1.5 / 1 = 1.5;
    their mean is (3 * .5 + 1.5) / 4 = .75, so a light prompt weighs 2/3 and the dark one 2.

    Attributes:
        advantage: the estimator whose advantages are weighted.
        strength: 0 weights all prompts alike.
    """

    advantage: Advantage
    strength: float = 1.0

    def __post_init__(self) -> None:
        check_numbers(self, strength="[0, inf)")

    def __call__(self, graded: Graded) -> Tensor:
        """Advantages [B, G]; see the class."""
        return self.advantage(graded) * self._weights(graded)[:, None]

    def _weights(self, graded: Graded) -> Tensor:
        """[B] float32."""
        counts = Counter(graded.strata)
        right: Counter[str | None] = Counter()
        for stratum, share in zip(graded.strata, graded.correct.float().mean(dim=1).tolist(), strict=True):
            right[stratum] += share
        weights = graded.rewards.new_tensor(
            [((2 - right[stratum] / counts[stratum]) / counts[stratum]) ** self.strength for stratum in graded.strata]
        )
        known = torch.tensor([stratum is not None for stratum in graded.strata], device=weights.device)
        return torch.where(known, weights / weights[known].mean(), 1.0)


@dataclass(frozen=True)
class OutcomeAnchored(Advantage):
    """GRPO++ (our reconstruction): a wrong diagnosis never gains, a right one never loses.

    With the outcome o = +1 (right) or -1 (wrong), its group mean m, and s the reward centred among the group's
    completions of the same outcome:

        A = anchor * o + (1 - anchor) * (o - m) / 2 + shaping * s,  clamped so that sign(A) is o or 0
        A of wrong answers is multiplied by confidence clamped to [confidence_floor, 1]
        A of groups with one outcome is multiplied by uniform_weight

    Worked case, G = 2, one right: o = (1, -1), m = 0. With anchor 0.5 and no shaping:
    A = (.5 + .25, -.5 - .25) = (.75, -.75); the wrong one with confidence 0.4 becomes -.3.
    All wrong, anchor 0.5, uniform_weight 0.5, confidences (1, .2), floor 0.1: A = (-.5, -.5) * (1, .2) * .5
    = (-.25, -.05): every wrong answer is pushed down, the confident one most.

    Attributes:
        anchor: share of the advantage that the outcome alone decides, in [0, 1].
        shaping: weight of what the rewards say among answers of the same outcome.
        confidence_floor: least weight of a wrong answer, in [0, 1]; 1 switches the weighting off.
        uniform_weight: weight of all-right and all-wrong groups; 0 silences them.
    """

    anchor: float = 0.5
    shaping: float = 1.0
    confidence_floor: float = 0.1
    uniform_weight: float = 0.5

    def __post_init__(self) -> None:
        check_numbers(self, anchor="[0, 1]", confidence_floor="[0, 1]", shaping="[0, inf)", uniform_weight="[0, inf)")

    def __call__(self, graded: Graded) -> Tensor:
        """Advantages [B, G]; see the class."""
        rewards, correct, confidence = graded.rewards, graded.correct, graded.confidence
        outcome = correct.float() * 2 - 1
        centred = (outcome - outcome.mean(dim=1, keepdim=True)) / 2
        advantages = self.anchor * outcome + (1 - self.anchor) * centred
        advantages = advantages + self.shaping * _centred_among_peers(rewards, correct)
        advantages = torch.where(correct, advantages.clamp(min=0), advantages.clamp(max=0))
        penalty = confidence.detach().clamp(self.confidence_floor, 1.0)
        advantages = torch.where(correct, advantages, advantages * penalty)
        uniform = uniform_groups(correct)[:, None]
        return torch.where(uniform, advantages * self.uniform_weight, advantages)


def _centred_among_peers(rewards: Tensor, correct: Tensor) -> Tensor:
    """Rewards minus the mean over the group's completions of the same outcome, [B, G]."""
    peers = (correct[:, :, None] == correct[:, None, :]).float()
    means = (peers * rewards[:, None, :]).sum(dim=-1) / peers.sum(dim=-1)
    return rewards - means
