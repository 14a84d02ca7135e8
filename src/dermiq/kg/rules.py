"""Verdicts, and the rules that make them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from dermiq.kg.closed_world import NEGLECT
from dermiq.kg.graph import Fact

Judgement = Literal["supported", "contradicted", "unknown"]

NOT_ALONE = "not enough alone"
RULES: Mapping[str, str] = MappingProxyType(
    {
        "stated": "a fact states it",
        "below": "a fact states something more special",
        "above": "a fact states something more general, of a relation that inherits",
        "denied": "a fact of strength never, or of the opposite relation, denies it",
        "denied rightly": "the text denies what a fact denies, or what no closed list has",
        "taken for granted": "the text denies what is always or typically so",
        "other value": "the relation has one value, and it is another one",
        "not on the list": "the condition's list is complete and has nothing akin to it",
        "how often": "said to be often what is rare or never, or rare what is typical",
        "not contagious": "a way of transmission of what is not contagious",
        "benign tumour": "a benign tumour, of what is malignant",
        "agent of another kind": "a virus, say, of what another kind of agent causes",
        "agent of no infection": "an agent of what is no infection and is linked to none",
        "drug against another agent": "an antiviral, say, of what no virus causes, and it is not listed",
        "drug against an agent, of no infection": "an antibiotic, say, of what no agent causes, and it is not listed",
        "cancer treatment of what is benign": "chemotherapy, radiotherapy and the like",
        NEGLECT: "nothing to be done about what is malignant or urgent",
        "course of cancer, of what is benign": "metastasis, or death of what may wait",
        "cure of what lasts or returns": "cured for good, of what is chronic or relapsing",
        NOT_ALONE: "the only treatment named is one that does not suffice",
        "reversed": "what causes or triggers it is said to relieve it",
        "out of range": "a number outside the range of the fact",
        "in range": "a number within the range of the fact",
        "diagnosis": "the case is this condition, a form of it, or what it is a form of; or it is not",
        "contested": "books do not agree on the value, and this one is next to the one stated",
        "other category": "a form of a condition of quite another category",
        "never": "said to be never so of what is possible",
        "with a sign": "urgent with a further sign, which the usual case need not have",
        "all members": "what holds, or fails, for every form of the condition",
    }
)
"""Rule -> what it says."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on a claim.

    Attributes:
        judgement: supported, contradicted or unknown.
        relation: of the deciding fact, else of the claim.
        evidence: the deciding facts; none if unknown, or if a diagnosis was judged by its name.
        rule: a key of `RULES`; empty if none applies.
    """

    judgement: Judgement
    relation: str
    evidence: tuple[Fact, ...] = ()
    rule: str = ""

    @property
    def strength(self) -> str:
        """Strength of the deciding fact; empty without one."""
        return self.evidence[0].strength if self.evidence else ""
