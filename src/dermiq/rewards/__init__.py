"""Rewards: functions of (answer, sample), combined by `RewardMixture`."""

from dermiq.rewards.alignment import JudgedAlignment, SemanticAlignment, reference_description
from dermiq.rewards.diagnosis import diagnosis, unhedged, well_formed
from dermiq.rewards.findings import findings, truthfulness
from dermiq.rewards.hierarchy import DiagnosisCredit
from dermiq.rewards.length import CorrectnessWeightedLength, ExtendedChain, LengthBand
from dermiq.rewards.mixture import RewardFunction, RewardMixture, RewardTerm, Scores
from dermiq.rewards.repetition import Repetition

__all__ = [
    "CorrectnessWeightedLength",
    "DiagnosisCredit",
    "ExtendedChain",
    "JudgedAlignment",
    "LengthBand",
    "Repetition",
    "RewardFunction",
    "RewardMixture",
    "RewardTerm",
    "Scores",
    "SemanticAlignment",
    "diagnosis",
    "findings",
    "reference_description",
    "truthfulness",
    "unhedged",
    "well_formed",
]
