"""A module that samples candidates, and samples for it."""

from dermiq.modules import CandidateModule
from dermiq.policy.rollout import Sampling
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis
from dermiq.schema import Sample


def module_of(backbone, **options):
    mixture = RewardMixture({"diagnosis": RewardTerm(diagnosis)})
    return CandidateModule(backbone, mixture, **{"candidates": 4, "sampling": Sampling(5)} | options)


def sample_of(name, **more):
    return Sample(**{"id": name, "images": ("x.png",), "target": "melanoma", "label": "mel", "group": "g"} | more)
