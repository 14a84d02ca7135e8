"""Hierarchical credit: partial reward for a diagnosis above the right one in the tree of conditions."""

from __future__ import annotations

from typing import Protocol

from dermiq.prompts import normalise
from dermiq.rewards.diagnosis import diagnosis
from dermiq.schema import Answer, Sample


class Taxonomy(Protocol):
    """Protocol of the names of conditions and their ancestors; YAML injects `dermiq.kg.Terminology`."""

    def concept(self, name: str) -> str | None:
        """The identifier of the condition with that name or synonym; None without one."""

    def names(self, concept: str) -> tuple[str, ...]:
        """The name of a condition or a category, then its synonyms."""

    def lineage(self, concept: str) -> frozenset[str]:
        """A condition or a category with all its ancestors."""


class DiagnosisCredit:
    """Credit for the diagnosis in [0, 1]: 1 for the right one, part of it for an ancestor in the ontology.

    The right diagnosis, or a form of it, earns 1, as the metrics count it (`dermiq.metrics.Judge`). The name of a
    condition or a category A above the target T earns |lineage(A)| / |lineage(T)| < 1, where a lineage is a concept
    with all its ancestors: the share of the path from the root to the truth. Anything else earns 0. Of several concepts
    that the label can mean, the nearest counts; a label that is broader than all of them has no place in the tree, and
    earns 1 or 0.

    The idea of paying for ancestors is that of Skin-R1 (arXiv:2511.14900), which grades the options of a
    multiple-choice question by their place on the path to the truth; the scale is ours. To questions that ask for no
    condition it is `dermiq.rewards.diagnosis`, so that it can stand in its place as a mixture's outcome.

    Args:
        terminology: look-up of names, `dermiq.kg.Terminology`.
    """

    def __init__(self, terminology: Taxonomy) -> None:
        self.terminology = terminology

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """The credit, in [0, 1]; None for conversation."""
        right = diagnosis(answer, sample)
        if right is None or right == 1 or not sample.asks_diagnosis or answer.diagnosis is None:
            return right
        name = normalise(answer.diagnosis)
        concept = self.terminology.concept(name)
        named = self.terminology.lineage(concept) if concept else frozenset()
        targets = self._targets(sample)
        if not named.isdisjoint(targets):
            return 1.0
        return max((self._share(name, self.terminology.lineage(target)) for target in targets), default=0.0)

    def _targets(self, sample: Sample) -> tuple[str, ...]:
        """The concepts that are right to name."""
        own = self.terminology.concept(sample.target)
        if own is None or (sample.concepts and own not in sample.concepts):
            return ()
        return sample.concepts or (own,)

    def _share(self, name: str, lineage: frozenset[str]) -> float:
        """The share of a lineage from the root to the concept of that name; 0 if none of its concepts has the name."""
        known = self.terminology
        above = [concept for concept in lineage if name in map(normalise, known.names(concept))]
        return max((len(known.lineage(concept)) / len(lineage) for concept in above), default=0.0)
