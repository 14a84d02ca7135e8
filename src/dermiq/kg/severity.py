"""Severity: how much harm it could do to believe a contradicted claim, in (0, 1]. The authors' judgement."""

from __future__ import annotations

from dermiq.kg.closed_world import NEGLECT
from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.rules import Verdict

_ORDER_OF_URGENCY = ("self_care", "routine", "urgent", "emergency")
_SEVERITY = {
    "diagnosis": 0.5,
    "malignancy": 0.3,
    "urgency": 0.1,
    "contagious": 0.3,
    "contraindicated": 0.6,
    "contraindicated_in": 0.6,
    "insufficient_alone": 0.3,
    "quantity": 0.2,
    "first_line": 0.4,
    "agent": 0.2,
}
_OTHER_SEVERITY = 0.1
_UNDERRATED_MALIGNANCY = 0.8
_UNDERTRIAGE_PER_STEP = 0.3


class Severities:
    """Severities of contradicted claims, by the facts of a graph."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph

    def __call__(self, claim: Claim, verdict: Verdict, case: str) -> float:
        """The severity of a claim that a verdict contradicts, in an answer about a case."""
        severity = _SEVERITY.get(verdict.relation, _OTHER_SEVERITY)
        if verdict.relation == "malignancy" and _underrated(claim, verdict.evidence[0].value):
            severity = _UNDERRATED_MALIGNANCY
        elif verdict.rule == NEGLECT:
            severity = _UNDERRATED_MALIGNANCY
        elif verdict.relation == "urgency":
            severity = max(severity, _UNDERTRIAGE_PER_STEP * _steps_too_low(claim, verdict.evidence[0].value))
        elif verdict.relation == DIAGNOSIS and self._misses_malignancy(claim, case):
            severity = _UNDERRATED_MALIGNANCY
        return severity / 2 if claim.hedged else severity

    def _misses_malignancy(self, claim: Claim, case: str) -> bool:
        return self._is_malignant(case) and not (claim.positive and self._is_malignant(claim.value))

    def _is_malignant(self, condition: str) -> bool:
        return any(fact.value == "malignant" for fact in self._graph.about(condition, "malignancy"))


def _underrated(claim: Claim, truth: str) -> bool:
    return truth != "benign" and (claim.value == "benign" if claim.positive else claim.value == truth)


def _steps_too_low(claim: Claim, truth: str) -> int:
    if not claim.positive:  # "it is not urgent"
        return 1
    return _ORDER_OF_URGENCY.index(truth) - _ORDER_OF_URGENCY.index(claim.value)
