"""A small stage that samples candidates, and a sample for it."""

from __future__ import annotations

from typing import Any

from dermiq.modules import CandidateModule
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.rollout import Sampling
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis
from dermiq.schema import Sample


def module_of(backbone: VLMBackbone, **options: Any) -> CandidateModule:
    """Four candidates of five tokens, graded by their diagnosis."""
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis)})
    return CandidateModule(backbone, mixture, **{"candidates": 4, "sampling": Sampling(5)} | options)


def sample_of(name: str, **more: Any) -> Sample:
    """A photograph of a melanoma."""
    return Sample(**{"id": name, "images": ("x.png",), "target": "melanoma", "label": "mel", "group": "g"} | more)
