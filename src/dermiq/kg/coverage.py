"""Coverage: how much of what sets a condition apart an answer states, as a share of what a question needs.

A fact weighs the square of its rarity, ln((1 + n) / k) / ln(1 + n), where k of the n conditions share it. What is true
of nearly every condition weighs nearly nothing, so a text that is written without a look at the case covers little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cached_property
from math import inf, log
from typing import NamedTuple

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.relations import RELATIONS

NAMING = 1.0  # to name the condition, as what the case is or as what a claim is about
UMBRELLA = 0.5  # the same with the name of what it is a form of
POSSIBLE = 0.25  # a fact that is possibly or rarely so, as a share of its weight
EXCLUSION = 0.02  # a rightly denied value, of a relation that has many
HEDGED = 0.5
NEEDED, NEEDED_OVERALL = 1.8, 2.8
PER_RELATION = 1.0


class Stated(NamedTuple):
    """A right statement about the case.

    Attributes:
        relation: of the fact that bears it out.
        value: identifier of the concept it is about.
        weight: see `Coverage.weight`.
        hedged: made with reserve.
    """

    relation: str
    value: str
    weight: float
    hedged: bool


class Coverage:
    """Coverage of questions about the conditions of a graph."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._needed: dict[tuple[str, tuple[str, ...]], float] = {}

    @cached_property
    def _sharing(self) -> Counter[tuple[str, str]]:
        """(Relation, value) -> number of conditions of which it, or something below it, is at least possibly so."""
        graph = self._graph
        return Counter(
            (relation, value)
            for condition in graph.conditions
            for relation in RELATIONS
            for value in {
                one
                for fact in graph.about(condition.id, relation)
                if fact.positive
                for one in (fact.value, *graph.ancestors[fact.value])
            }
        )

    def rarity(self, relation: str, value: str) -> float:
        """Rarity of a value among the conditions, in [0, 1]; 1 if no other condition shares it."""
        everybody = 1 + len(self._graph.conditions)
        return log(everybody / max(1, self._sharing[relation, value])) / log(everybody)

    def weight(self, value: str, evidence: tuple[Fact, ...]) -> tuple[str, float]:
        """The value that a right statement of `value` counts for, and its weight, by the facts that bear it out.

        More general words than the fact's weigh less, as more conditions share them; more special ones no more.
        """
        fact = evidence[0]
        if len(evidence) > 1 or not fact.positive:
            return value, EXCLUSION
        weight = self.rarity(fact.relation, fact.value) ** 2
        if value in self._graph.ancestors[fact.value]:
            weight = min(weight, self.rarity(fact.relation, value) ** 2)
        return fact.value, weight if fact.strength in ("always", "typical") else POSSIBLE * weight

    def __call__(self, stated: Iterable[Stated], case: str, relations: tuple[str, ...], overall: bool) -> float:
        """The share of what a question needs that was stated, in [0, 1].

        Args:
            stated: what is right and bears on the question; of equal values the heaviest counts.
            case: identifier of the condition.
            relations: those that answer the question.
            overall: no type of question is known, so that no relation may count for much.
        """
        plain: dict[tuple[str, str], float] = {}
        hedged: dict[tuple[str, str], float] = {}
        for one in stated:
            kept, key = (hedged if one.hedged else plain), (one.relation, one.value)
            kept[key] = max(one.weight * (HEDGED if one.hedged else 1.0), kept.get(key, 0.0))
        reserved = {key: weight for key, weight in hedged.items() if key not in plain}
        needed, cap = self.needed(case, relations, overall), PER_RELATION if overall else inf
        return min(1.0, (_total(plain, cap) + min(_total(reserved, cap / 2), needed / 2)) / needed)

    def needed(self, case: str, relations: tuple[str, ...], overall: bool) -> float:
        """The weight that covers a question in full: of the name and the must-have facts, up to a limit."""
        needed = self._needed.get((case, relations))
        if needed is None:
            facts = [fact for relation in relations for fact in self._graph.about(case, relation)]
            weights = {
                (fact.relation, fact.value): self.rarity(fact.relation, fact.value) ** 2
                for fact in facts
                if fact.strength in ("always", "typical")
            }
            there = NAMING + _total(weights, PER_RELATION if overall else inf)
            needed = self._needed[case, relations] = min(there, NEEDED_OVERALL if overall else NEEDED)
        return needed

    def naming(self, value: str, case: str) -> float:
        """The weight of naming the case by a condition that it is, or is a form of."""
        return UMBRELLA if value in self._graph.ancestors[case] else NAMING


def _total(weights: Mapping[tuple[str, str], float], cap: float) -> float:
    """The sum of the weights of (relation, value), each relation's up to a cap."""
    sums: dict[str, float] = {}
    for (relation, _), weight in weights.items():
        sums[relation] = sums.get(relation, 0.0) + weight
    return sum(min(total, inf if relation == DIAGNOSIS else cap) for relation, total in sums.items())
