"""What every stage is judged by, in validation and test alike."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import MeanMetric, Metric
from torchmetrics.utilities import dim_zero_cat

from dermiq.atlas import concept_of
from dermiq.prompts import accepted_names, normalise
from dermiq.schema import Answer, Sample

NO_ANSWER = ""
CONVERSATION = "conversation/"


def named_concept(answer: Answer, sample: Sample) -> str:
    """The concept an answer names: the target under any accepted name, an atlas concept, else the text itself."""
    if answer.diagnosis is None:
        return NO_ANSWER
    name = normalise(answer.diagnosis)
    if name in accepted_names(sample):
        return sample.target
    return concept_of(name) or name


def majority(answers: Sequence[Answer], sample: Sample) -> str:
    """The concept named most often, the earliest of equals; malformed answers do not vote."""
    votes = Counter(named_concept(answer, sample) for answer in answers)
    votes.pop(NO_ANSWER, None)
    return votes.most_common(1)[0][0] if votes else NO_ANSWER


def _number(concept: str) -> int:
    """A concept as an integer, so that metric states stay tensors that processes can exchange."""
    return int.from_bytes(hashlib.sha256(concept.encode()).digest()[:7], "little")


class DiagnosisMetrics(Metric):
    """Accuracy, balanced accuracy and macro-F1 over the concepts that occur as targets.

    Balanced accuracy is the mean of the concepts' recalls; macro-F1 the mean of their F1 scores, 0 where
    a concept is never named rightly. An answer outside the concepts counts against its target's recall.
    """

    full_state_update = False
    targets: list[Tensor]
    named: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("targets", default=[], dist_reduce_fx="cat")
        self.add_state("named", default=[], dist_reduce_fx="cat")

    def update(self, targets: Sequence[str], named: Sequence[str]) -> None:
        """Add the target and the named concept of each sample."""
        self.targets.append(torch.tensor([_number(concept) for concept in targets], device=self.device))
        self.named.append(torch.tensor([_number(concept) for concept in named], device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """`accuracy`, `balanced_accuracy` and `macro_f1`, each in [0, 1]."""
        targets, named = dim_zero_cat(self.targets), dim_zero_cat(self.named)
        recalls, scores = [], []
        for concept in targets.unique():
            right = ((targets == concept) & (named == concept)).sum()
            actual, claimed = (targets == concept).sum(), (named == concept).sum()
            recalls.append(right / actual)
            scores.append(2 * right / (actual + claimed))
        return {
            "accuracy": (targets == named).float().mean(),
            "balanced_accuracy": torch.stack(recalls).mean(),
            "macro_f1": torch.stack(scores).mean(),
        }


class EvaluationMetrics(torch.nn.Module):
    """The metrics of one evaluation: of greedy answers and, where samples are drawn, of those too."""

    def __init__(self) -> None:
        super().__init__()
        self.greedy = DiagnosisMetrics()
        self.majority = DiagnosisMetrics()
        self.means = torch.nn.ModuleDict()

    def update(self, samples: Sequence[Sample], answers: Sequence[Answer], values: dict[str, Tensor]) -> None:
        """Add greedy answers, and per-sample `values` [B] to be averaged under their names.

        Diagnoses alone count towards accuracy. Values of conversations go under ``conversation/``; a NaN, where a
        value does not apply to its sample, is left out.
        """
        diagnoses = [(s, named_concept(a, s)) for a, s in zip(answers, samples, strict=True) if s.asks_diagnosis]
        self._add(self.greedy, diagnoses)
        conversation = torch.tensor([not sample.asks_diagnosis for sample in samples])
        for name, value in values.items():
            for prefix, rows in (("", ~conversation), (CONVERSATION, conversation)):
                applies = value[rows & ~value.isnan()]
                if len(applies):
                    self._mean(prefix + name).update(applies.to(self.greedy.device))

    def update_majority(self, samples: Sequence[Sample], named: Sequence[str]) -> None:
        """Add the concepts that the majority of samples named."""
        self._add(self.majority, [(s, name) for s, name in zip(samples, named, strict=True) if s.asks_diagnosis])

    @property
    def update_called(self) -> bool:
        """True once something has been judged."""
        return self.greedy.update_called or bool(self.means)

    def compute(self) -> dict[str, Tensor]:
        """All metrics by name."""
        result: dict[str, Tensor] = dict(self.greedy.compute()) if self.greedy.update_called else {}
        if self.majority.update_called:
            result |= {f"majority_{name}": value for name, value in self.majority.compute().items()}
        return result | {name: self._mean(name).compute() for name in self.means}

    def reset(self) -> None:
        """Forget everything."""
        self.greedy.reset()
        self.majority.reset()
        self.means.clear()

    @staticmethod
    def _add(metric: DiagnosisMetrics, diagnoses: Sequence[tuple[Sample, str]]) -> None:
        if diagnoses:
            metric.update([sample.target for sample, _ in diagnoses], [name for _, name in diagnoses])

    def _mean(self, name: str) -> Any:
        if name not in self.means:
            self.means[name] = MeanMetric().to(self.greedy.device)
        return self.means[name]
