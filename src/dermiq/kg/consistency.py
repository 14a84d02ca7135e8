"""Consistency of the diagnosis with the findings that its own reasoning states; typical descriptions of conditions.

Checking reasoning against a knowledge graph as a reward is the idea of CheXPO-v2 (arXiv:2512.17213), which matches
triplets of disease, relation and anatomy in reports of chest X-rays with those of a reference. Ours needs no reference:
it is the posterior probability of each condition given the stated findings, by `dermiq.kg.appearance`.

With s_a the values stated of attribute a, and K conditions that are equally probable beforehand,

    P(c | s) = prod_a P_a(s_a | c) / sum_c' prod_a P_a(s_a | c')
    P_a(s_a | c) = (1 - SLIP) * sum_{v in s_a} p_a(v | c) + SLIP * |s_a| / |V_a|

where p_a(v | c) is the appearance of condition c and V_a are all values of the attribute. Findings count as independent
given the condition. Several values stated of one attribute mean that one of them is present: naming all is no evidence.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from dermiq.findings import VOCABULARY, read_findings
from dermiq.kg.appearance import RELATIONS, appearance, typical
from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.ontology.loading import load_graph
from dermiq.prompts import describe, normalise
from dermiq.schema import Answer, KnowledgeError, Sample

# The probability that a value is independent of the condition (misread, or rare): no single finding excludes one.
SLIP = 0.05
Stated = tuple[tuple[str, tuple[str, ...]], ...]
Tables = Mapping[tuple[str, str], NDArray[np.float64]]

_graph = lru_cache(maxsize=4)(load_graph)


class ReasoningConsistency:
    """Probability of a completion's diagnosis given the findings that its reasoning states, in [0, 1].

    It is 0 if no finding is stated, if all values are stated of every stated attribute, and if the diagnosis is none of
    the conditions compared. The target is not used: reasoning that is made up to fit a wrong answer is consistent, so
    use this beside a reward of the diagnosis, and watch the truthfulness.

    Args:
        conditions: names of the conditions compared; None compares all that the graph describes.
        ontology: an OWL file in place of the one that comes with the package.
    """

    def __init__(self, conditions: list[str] | None = None, ontology: Path | None = None) -> None:
        self.conditions = None if conditions is None else tuple(conditions)
        self.ontology = ontology

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """The probability; None unless a diagnosis in structure is asked for.

        Raises:
            KnowledgeError: if the graph does not know one of the conditions, or there are fewer than two.
        """
        if not sample.asks_diagnosis:
            return None
        named = _graph(self.ontology).lookup(normalise(answer.diagnosis or ""))
        stated = tuple(
            (attribute, tuple(sorted(values)))
            for attribute, values in sorted(read_findings(answer.think).items())
            if len(values) < len(VOCABULARY[attribute])
        )
        return _posterior(self.ontology, self.conditions, stated).get(named.id, 0.0) if named and stated else 0.0


class TypicalDescription:
    """The typical appearance of a sample's condition as text: a reference where only the label is known.

    Args:
        ontology: an OWL file in place of the one that comes with the package.
    """

    def __init__(self, ontology: Path | None = None) -> None:
        self.ontology = ontology

    def __call__(self, sample: Sample) -> str | None:
        """The most typical value of each attribute, in the words of `dermiq.prompts.describe`.

        None unless a diagnosis is asked for, and if the graph has no such condition.
        """
        if not sample.asks_diagnosis:
            return None
        graph = _graph(self.ontology)
        found = graph.lookup(sample.concepts[0] if sample.concepts else sample.target)
        return describe(typical(graph, found.id)) if found else None


@lru_cache(maxsize=16)
def _likelihoods(ontology: Path | None, conditions: tuple[str, ...] | None) -> tuple[tuple[str, ...], Tables]:
    """The K conditions compared, and (attribute, value) -> its probability under each of them, [K] float64.

    Raises:
        KnowledgeError: if the graph does not know one of them, or there are fewer than two.
    """
    graph = _graph(ontology)
    compared = _described(graph) if conditions is None else {graph.find(name).id: None for name in conditions}
    if len(compared) < 2:
        raise KnowledgeError("Consistency compares conditions: name at least two different ones in `conditions`.")
    looks = [appearance(graph, condition) for condition in compared]
    tables = {
        (attribute, value): np.array([look[attribute].get(value, 0.0) for look in looks])
        for attribute, values in VOCABULARY.items()
        for value in values
    }
    return tuple(compared), MappingProxyType(tables)


def _described(graph: KnowledgeGraph) -> dict[str, None]:
    return {
        condition.id: None
        for condition in graph.conditions
        if any(graph.about(condition.id, relation) for relation in RELATIONS)
    }


@lru_cache(maxsize=2**14)
def _posterior(ontology: Path | None, conditions: tuple[str, ...] | None, stated: Stated) -> dict[str, float]:
    """Condition -> probability given the stated findings."""
    compared, tables = _likelihoods(ontology, conditions)
    likelihoods = np.ones(len(compared))
    for attribute, values in stated:
        known = sum((tables[attribute, value] for value in values), np.zeros(len(compared)))
        likelihoods *= (1.0 - SLIP) * known + SLIP * len(values) / len(VOCABULARY[attribute])
    return dict(zip(compared, (likelihoods / likelihoods.sum()).tolist(), strict=True))
