"""Verdicts on claims: supported, contradicted or unknown, with the facts that decide.

A claim is contradicted only by an explicit negative, by a closed list that it is not on, by a value that excludes it
(malignancy, contagion, urgency), or by denying what is always or typically so. Everything else that is not in the graph
is unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS, TREATMENT
from dermiq.kg.relations import RELATIONS

Judgement = Literal["supported", "contradicted", "unknown"]

# Relations whose facts support a claim, and those whose facts contradict it.
_FOR = {
    TREATMENT: ("first_line", "second_line"),
    "cause": ("cause", "risk_factor", "trigger"),
    "morphology": ("morphology", "secondary_morphology"),
    "secondary_morphology": ("secondary_morphology", "morphology"),
}
_AGAINST = {
    TREATMENT: "contraindicated",
    "first_line": "contraindicated",
    "second_line": "contraindicated",
    "symptom": "absent_symptom",
    "test": "test_not_needed",
    "dermoscopy": "dermoscopy_against",
}
_BENIGN_TUMOUR = "benign_tumour"  # a category that implies a malignancy
_TAKEN_FOR_GRANTED = ("always", "typical")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        judgement: supported, contradicted or unknown.
        relation: of the deciding fact, else of the claim.
        evidence: the deciding facts; none if unknown, or if a diagnosis was judged by its name.
        rule: the rule that made it, in words.
    """

    judgement: Judgement
    relation: str
    evidence: tuple[Fact, ...] = ()
    rule: str = ""

    @property
    def strength(self) -> str:
        """Strength of the deciding fact; empty without one."""
        return self.evidence[0].strength if self.evidence else ""


def _is_malignant(fact: Fact) -> bool:
    return fact.value == "malignant" and fact.positive


def _rules_out_contagion(fact: Fact) -> bool:
    return fact.positive and fact.value == "non_contagious"


class Judge:
    """Judges claims by a graph; verdicts are cached by statement."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._known: dict[tuple[object, ...], Verdict] = {}

    def __call__(self, claim: Claim, case: str) -> Verdict:
        """The verdict on a claim in an answer about a case, the identifier of a condition."""
        if claim.relation == DIAGNOSIS:
            return self._diagnosis(claim, case)
        key = claim.statement
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._known[key] = self._judge(claim)
        return verdict

    def _judge(self, claim: Claim) -> Verdict:
        if claim.relation == "subtype_of":
            same = self._graph.related(claim.subject, claim.value)
            return Verdict("supported" if same and claim.positive else "unknown", "subtype_of")
        if claim.relation == "differential":
            claim = self._as_held(claim)
        relations = _FOR.get(claim.relation, (claim.relation,))
        facts = [fact for name in relations for fact in self._graph.about(claim.subject, name)]
        against = [fact for fact in self._graph.about(claim.subject, _AGAINST.get(claim.relation, "")) if fact.positive]
        if RELATIONS[relations[0]].functional:
            return self._exclusive(claim, facts)
        if claim.positive:
            return self._affirmed(claim, facts, against)
        return self._denied(claim, facts, against)

    def _diagnosis(self, claim: Claim, case: str) -> Verdict:
        """The verdict on a diagnosis: right if it is the case's condition, an ancestor or a descendant of it."""
        right = self._graph.related(claim.value, case)
        if claim.positive:
            return Verdict("supported" if right else "contradicted", DIAGNOSIS)
        denied = claim.value == case or claim.value in self._graph.ancestors[case]
        return Verdict("contradicted" if denied else "unknown", DIAGNOSIS)

    def _as_held(self, claim: Claim) -> Claim:
        """A claim of a differential, which is symmetric, in the direction that the graph has."""
        turned = claim._replace(subject=claim.value, value=claim.subject)
        for one in (claim, turned):
            if any(fact.value == one.value for fact in self._graph.about(one.subject, "differential")):
                return one
        return claim

    def _exclusive(self, claim: Claim, facts: list[Fact]) -> Verdict:
        """The verdict in a functional relation, whose values exclude each other."""
        held = tuple(fact for fact in facts if fact.positive)
        if denial := self._first(facts, lambda fact: not fact.positive and fact.value == claim.value):
            return Verdict("contradicted" if claim.positive else "supported", claim.relation, (denial,))
        if not held:
            return Verdict("unknown", claim.relation)
        if claim.value == "pre_malignant" and held[0].value == "benign" and self._may_turn_malignant(claim.subject):
            return Verdict("unknown", claim.relation)
        agrees = (held[0].value == claim.value) == claim.positive
        return Verdict("supported" if agrees else "contradicted", claim.relation, held[:1])

    def _may_turn_malignant(self, condition: str) -> bool:
        return any(
            fact.positive and any(map(_is_malignant, self._graph.about(fact.value, "malignancy")))
            for fact in self._graph.about(condition, "progresses_to")
        )

    def _affirmed(self, claim: Claim, facts: list[Fact], against: list[Fact]) -> Verdict:
        value = claim.value
        malignancy = self._graph.about(claim.subject, "malignancy")
        if value == _BENIGN_TUMOUR and (held := self._first(malignancy, _is_malignant)):
            return Verdict("contradicted", "malignancy", (held,))
        above = self._graph.ancestors[value]
        if exact := self._first(facts, lambda fact: fact.positive and fact.value == value):
            return Verdict("supported", exact.relation, (exact,))
        denials = [*(fact for fact in facts if not fact.positive), *against]
        denial = self._first(denials, lambda fact: fact.value == value) or self._first(
            denials, lambda fact: fact.value in above
        )
        if near := self._near(claim, facts):
            blunt = denial is not None and denial.value == value
            if not blunt:
                return Verdict("supported", near.relation, (near,))
        if not facts and (never_caught := self._never_caught(claim)):
            return Verdict("contradicted", "contagious", (never_caught,))
        if denial and (denial.relation != "absent_symptom" or denial.strength in _TAKEN_FOR_GRANTED):
            return Verdict("contradicted", denial.relation, (denial,))
        return self._closed(claim, facts)

    def _never_caught(self, claim: Claim) -> Fact | None:
        """The fact that a condition is not contagious, if a claim is about its transmission."""
        if claim.relation != "transmission":
            return None
        return self._first(self._graph.about(claim.subject, "contagious"), _rules_out_contagion)

    def _near(self, claim: Claim, facts: list[Fact]) -> Fact | None:
        """A positive fact about a descendant of the claim's value or, where facts inherit, an ancestor."""
        above = self._graph.ancestors[claim.value]
        held = [fact for fact in facts if fact.positive]
        return self._first(held, lambda fact: claim.value in self._graph.ancestors[fact.value]) or self._first(
            held, lambda fact: RELATIONS[fact.relation].inherits and fact.value in above
        )

    def _closed(self, claim: Claim, facts: list[Fact]) -> Verdict:
        """Contradicted if the list of values is complete and has no ancestor or descendant of the claim's value."""
        listed = tuple(fact for fact in facts if fact.relation == claim.relation and fact.closed and fact.positive)
        if listed and not any(self._graph.related(fact.value, claim.value) for fact in listed):
            return Verdict("contradicted", claim.relation, listed)
        return Verdict("unknown", claim.relation)

    def _denied(self, claim: Claim, facts: list[Fact], against: list[Fact]) -> Verdict:
        value, above = claim.value, self._graph.ancestors[claim.value]
        for fact in facts:
            below = fact.value == value or value in self._graph.ancestors[fact.value]
            if below and fact.strength in _TAKEN_FOR_GRANTED:
                return Verdict("contradicted", fact.relation, (fact,))
        denials = [*(fact for fact in facts if not fact.positive), *against]
        if denial := self._first(denials, lambda fact: fact.value == value or fact.value in above):
            return Verdict("supported", denial.relation, (denial,))
        if not facts and (never_caught := self._never_caught(claim)):
            return Verdict("supported", "contagious", (never_caught,))
        listed = tuple(fact for fact in facts if fact.relation == claim.relation and fact.closed and fact.positive)
        if listed and not any(self._graph.related(fact.value, value) for fact in facts):
            return Verdict("supported", claim.relation, listed)
        return Verdict("unknown", claim.relation)

    @staticmethod
    def _first(facts: Iterable[Fact], holds: Callable[[Fact], bool]) -> Fact | None:
        return next((fact for fact in facts if holds(fact)), None)
