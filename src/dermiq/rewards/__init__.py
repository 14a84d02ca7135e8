"""Rewards: each a small function of (answer, sample), joined by `RewardMixture`."""

from dermiq.rewards.diagnosis import diagnosis, unhedged, well_formed
from dermiq.rewards.findings import findings, truthfulness
from dermiq.rewards.mixture import RewardFunction, RewardMixture, RewardTerm, Scores

__all__ = [
    "RewardFunction",
    "RewardMixture",
    "RewardTerm",
    "Scores",
    "diagnosis",
    "findings",
    "truthfulness",
    "unhedged",
    "well_formed",
]
