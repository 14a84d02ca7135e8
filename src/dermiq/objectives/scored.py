"""The output of a training step that samples: what callbacks and the curriculum read."""

from __future__ import annotations

from typing import TypedDict

from torch import Tensor

from dermiq.policy.rollout import Rollout
from dermiq.rewards import Scores


class ScoredRollout(TypedDict):
    """Completions of B prompts, G each, and what they earned.

    Attributes:
        rollout: the completions.
        scores: their rewards.
        advantages: [B, G] float32.
    """

    rollout: Rollout
    scores: Scores
    advantages: Tensor
