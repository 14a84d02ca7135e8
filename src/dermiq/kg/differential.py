"""Differential diagnosis by findings: the conditions that what was seen and felt points to."""

from __future__ import annotations

from collections.abc import Iterable

from dermiq.kg.coverage import Coverage
from dermiq.kg.graph import Fact, KnowledgeGraph

MOST = 3  # conditions
ENOUGH = 0.2  # the least weight, and
FINDINGS = 2  # the least number of findings, that point to a condition
_RELATIONS = (
    "morphology", "secondary_morphology", "colour", "distribution", "site", "symptom", "dermoscopy", "age_group",
)  # fmt: skip
_STRENGTH = {"always": 1.0, "typical": 1.0, "possible": 0.4, "rare": 0.1}
_KINDS = frozenset(("lesion", "surface", "colour", "distribution", "site", "symptom", "dermoscopy", "age"))


class Differential:
    """Ranks the conditions of a graph by findings; rare findings weigh more (`dermiq.kg.coverage`)."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._coverage = Coverage(graph)

    def __call__(self, values: Iterable[str]) -> list[tuple[float, list[Fact]]]:
        """(Weight, the facts that agree with the findings) of the likeliest conditions; empty if too little is said.

        Args:
            values: identifiers of concepts; those that are no findings are passed over.
        """
        findings = [value for value in sorted(values) if self._graph.concepts[value].kind in _KINDS]
        ranked = [self._weigh(condition.id, findings) for condition in self._graph.conditions]
        likely = [(weight, facts) for weight, facts in ranked if len(facts) >= FINDINGS and weight >= ENOUGH]
        return sorted(likely, key=lambda one: -one[0])[:MOST]

    def _weigh(self, condition: str, findings: list[str]) -> tuple[float, list[Fact]]:
        facts = [fact for relation in _RELATIONS for fact in self._graph.about(condition, relation)]
        weight, agreeing = 0.0, []
        for value in findings:
            near = [fact for fact in facts if self._graph.related(fact.value, value)]
            held = max(near, key=lambda fact: _STRENGTH.get(fact.strength, 0.0), default=None)
            if held is None:
                weight -= self._coverage.rarity(_relation(self._graph, value), value) ** 2 / 2
            elif held.positive:
                weight += _STRENGTH[held.strength] * self._coverage.rarity(held.relation, value) ** 2
                agreeing.append(held)
            else:
                weight -= 1.0
        return weight, agreeing


def _relation(graph: KnowledgeGraph, value: str) -> str:
    kind = graph.concepts[value].kind
    return {"lesion": "morphology", "surface": "secondary_morphology", "age": "age_group"}.get(kind, kind)
