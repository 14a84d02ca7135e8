"""Advantages of G completions of one prompt: pure functions of [B, G] tensors.

Each estimator is a frozen set of options with one call:

    advantage(rewards [B, G] float32, correct [B, G] bool, confidence [B, G] float32) -> [B, G] float32

`rewards` are totals, `correct` says whether the diagnosis is right, `confidence` is the policy's own detached,
length-normalised probability of the completion.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor


class Advantage(ABC):
    """What the GRPO module asks of an estimator."""

    @abstractmethod
    def __call__(self, rewards: Tensor, correct: Tensor, confidence: Tensor) -> Tensor:
        """Advantages [B, G]."""


def uniform_groups(values: Tensor) -> Tensor:
    """[B] bool: all of a group's values are equal (decided by equality, never by a standard deviation)."""
    return (values == values[:, :1]).all(dim=1)


@dataclass(frozen=True)
class GroupRelative(Advantage):
    """A = r - mean(r), divided by std(r) if asked for (GRPO, arXiv:2402.03300; without std: Dr. GRPO, 2503.20783).

    Worked case, rewards (1, 0, 0, 0): r - mean = (.75, -.25, -.25, -.25); the unbiased std is 0.5, so with
    scaling (1.5, -.5, -.5, -.5). A uniform group gives exact zeros.

    Attributes:
        scale_by_std: divide by the group's unbiased standard deviation.
    """

    scale_by_std: bool = False

    def __call__(self, rewards: Tensor, correct: Tensor, confidence: Tensor) -> Tensor:
        """Advantages [B, G]; see the class."""
        centred = rewards - rewards.mean(dim=1, keepdim=True)
        if self.scale_by_std:
            correction = min(1, rewards.shape[1] - 1)
            centred = centred / (rewards.std(dim=1, keepdim=True, correction=correction) + 1e-6)
        return centred.masked_fill(uniform_groups(rewards)[:, None], 0.0)


@dataclass(frozen=True)
class LeaveOneOut(Advantage):
    """A_i = r_i - mean of the others' rewards (RLOO, Ahmadian et al. 2024, arXiv:2402.14740, eq. 8).

    Worked case, rewards (1, 0, 0): A = (1 - 0, 0 - 1/2, 0 - 1/2) = (1, -.5, -.5).
    """

    def __call__(self, rewards: Tensor, correct: Tensor, confidence: Tensor) -> Tensor:
        """Advantages [B, G]; see the class."""
        group_size = rewards.shape[1]
        others = (rewards.sum(dim=1, keepdim=True) - rewards) / max(group_size - 1, 1)
        return (rewards - others).masked_fill(uniform_groups(rewards)[:, None], 0.0)


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
        if not (0 <= self.anchor <= 1 and 0 <= self.confidence_floor <= 1):
            raise ValueError(f"anchor and confidence_floor lie in [0, 1]; got {self}")
        if self.shaping < 0 or self.uniform_weight < 0:
            raise ValueError(f"shaping and uniform_weight are not negative; got {self}")

    def __call__(self, rewards: Tensor, correct: Tensor, confidence: Tensor) -> Tensor:
        """Advantages [B, G]; see the class."""
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
