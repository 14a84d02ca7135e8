"""Rules where medicine is closed: agents, drugs against agents and cancer, doing nothing, metastasis.

An open-world graph calls unknown what it does not state. No textbook lists what does not cause psoriasis; yet it is
wrong that a fungus does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from importlib.resources import files
from typing import Any

import yaml

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import TREATMENT

NEGLECT = "no treatment of what must be treated"
TREATED = (TREATMENT, "first_line", "second_line")
_CAUSED = ("cause", "risk_factor", "trigger")
_PAIRED = ("course", "distribution")
_WAITING = ("self_care", "routine")


class ClosedWorld:
    """Judges what the facts of a graph do not state."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph

    @cached_property
    def _table(self) -> dict[str, Any]:
        text = (files("dermiq.kg") / "closed_world.yaml").read_text(encoding="utf-8")
        table: dict[str, Any] = yaml.safe_load(text)
        return table

    def refute(self, claim: Claim) -> tuple[str, tuple[Fact, ...]] | None:
        """The rule by which a value is wrong for a condition, and the facts that decide; None if no rule applies."""
        relation, value = claim.relation, claim.value
        if relation == "agent":
            return self._agent(claim.subject, value)
        if relation in TREATED:
            return self._treatment(claim.subject, value)
        if relation == "course":
            return self._course(claim.subject, value)
        return None

    def as_treatment(self, factor: str) -> str:
        """The treatment that a factor is where it is given: "Give aspirin"; empty if it is none."""
        treatment: str = self._table["as_treatment"].get(factor, "")
        return treatment if treatment in self._graph.concepts else ""

    def excluding(self, claims: Sequence[Claim]) -> int:
        """How many pairs of values, said of one condition, exclude each other."""
        said = {(claim.subject, claim.value) for claim in claims if claim.positive and not claim.hedged}
        return sum(
            (subject, other) in said and not self._has_both(subject, one, other)
            for subject, value in said
            for one, other in self._table["exclusive"]
            if value == one
        )

    def _has_both(self, condition: str, *values: str) -> bool:
        held = {fact.value for name in _PAIRED for fact in self._positive(condition, name)}
        return held.issuperset(values)

    def _agent(self, condition: str, agent: str) -> tuple[str, tuple[Fact, ...]] | None:
        held = self._positive(condition, "agent")
        kind = self._class_of(agent)
        if held:
            known = {self._class_of(fact.value) for fact in held}
            other = kind and known and None not in known and kind not in known
            return ("agent of another kind", held) if other else None
        sterile = kind and self._is_sterile(condition, kind)
        return ("agent of no infection", self._positive(condition, "category")) if sterile else None

    def _treatment(self, condition: str, drug: str) -> tuple[str, tuple[Fact, ...]] | None:
        listed = [fact.value for name in ("first_line", "second_line") for fact in self._positive(condition, name)]
        if self._is(drug, ["no_treatment"]):
            return None if "no_treatment" in listed else self._neglect(condition)
        for kind, drugs in self._table["drugs"].items():
            if not self._is(drug, drugs) or any(self._is(one, drugs) for one in listed):
                continue
            agents = self._positive(condition, "agent")
            if agents and kind not in {self._class_of(fact.value) for fact in agents}:
                return "drug against another agent", agents
            if not agents and self._is_sterile(condition, kind):
                return "drug against an agent, of no infection", self._positive(condition, "category")
        benign = self._positive(condition, "malignancy", "benign")
        cancer = self._table["against_cancer"]
        if benign and self._is(drug, cancer) and not any(self._is(one, cancer) for one in listed):
            return "cancer treatment of what is benign", benign
        return None

    def _neglect(self, condition: str) -> tuple[str, tuple[Fact, ...]] | None:
        facts = self._positive(condition, "malignancy", "malignant") or tuple(
            fact for fact in self._positive(condition, "urgency") if fact.value not in _WAITING
        )
        return (NEGLECT, facts) if facts else None

    def _course(self, condition: str, course: str) -> tuple[str, tuple[Fact, ...]] | None:
        held = self._positive(condition, "course")
        if any(fact.value == course for fact in held):
            return None
        lasting = tuple(
            fact for fact in held if fact.value in self._table["lasting"] and fact.strength in ("always", "typical")
        )
        if course == self._table["cure"] and lasting:
            return "cure of what lasts or returns", lasting
        benign = self._positive(condition, "malignancy", "benign")
        waiting = bool(self._positive(condition, "urgency", *_WAITING))
        if benign and (course in self._table["of_cancer"] or (waiting and course in self._table["grave"])):
            return "course of cancer, of what is benign", benign
        return None

    def _is_sterile(self, condition: str, kind: str) -> bool:
        """True if a condition has nothing to do with a class of agents, as far as its facts go."""
        categories = self._positive(condition, "category")
        infected = any(self._is(fact.value, ("infection", "parasitic_infestation")) for fact in categories)
        linked = any(
            kind in self._table["infections"].get(fact.value, ())
            for name in _CAUSED
            for fact in self._positive(condition, name)
        )
        contagious = self._positive(condition, "contagious", "contagious")
        return bool(categories) and not (infected or linked or contagious)

    def _class_of(self, agent: str) -> str | None:
        return next((kind for kind, tops in self._table["agents"].items() if self._is(agent, tops)), None)

    def _is(self, value: str, tops: Iterable[str]) -> bool:
        """True if a value is one of some concepts, or below one."""
        above = self._graph.ancestors.get(value, frozenset())
        return any(value == top or top in above for top in tops)

    def _positive(self, condition: str, relation: str, *values: str) -> tuple[Fact, ...]:
        """The positive facts of a relation, of some values or of all."""
        facts = self._graph.about(condition, relation)
        return tuple(fact for fact in facts if fact.positive and (not values or fact.value in values))
