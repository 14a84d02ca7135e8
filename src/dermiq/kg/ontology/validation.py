"""Validation of a knowledge graph: errors that make it unfit to judge answers, and warnings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.linking import name_key
from dermiq.kg.quantities import parse_range
from dermiq.kg.relations import KINDS, RELATIONS, STRENGTHS
from dermiq.schema import KnowledgeError

# Pairs of relations of which one condition cannot have the same value.
_CLASHES = (
    ("symptom", "absent_symptom"),
    ("dermoscopy", "dermoscopy_against"),
    ("first_line", "contraindicated"),
    ("second_line", "contraindicated"),
    ("test", "test_not_needed"),
    ("first_line", "insufficient_alone"),
    ("second_line", "insufficient_alone"),
    ("contraindicated", "insufficient_alone"),
    ("trigger", "relieved_by"),
)
_FEW_FACTS = 12


@dataclass(frozen=True)
class Finding:
    """An error or a warning.

    Attributes:
        error: True if the graph must not be used; False for a warning.
        where: the concept or fact concerned.
        message: what is wrong.
    """

    error: bool
    where: str
    message: str

    def __str__(self) -> str:
        return f"{'error' if self.error else 'warning'}: {self.where}: {self.message}"


def validate(graph: KnowledgeGraph) -> list[Finding]:
    """All errors and warnings of a graph, errors first."""
    found = [
        *_dangling(graph),
        *_cycles(graph),
        *_contradictions(graph),
        *_citations(graph),
        *_names(graph),
        *_thin(graph),
    ]
    return sorted(found, key=lambda finding: not finding.error)


def _where(fact: Fact) -> str:
    return f"{fact.subject} {fact.relation} {fact.value}"


def _dangling(graph: KnowledgeGraph) -> Iterator[Finding]:
    for concept in graph.concepts.values():
        if concept.kind not in KINDS:
            yield Finding(True, concept.id, f"unknown kind {concept.kind!r}")
        for parent in concept.broader:
            if parent not in graph.concepts:
                yield Finding(True, concept.id, f"stands below {parent!r}, which does not exist")
            elif graph.concepts[parent].kind != concept.kind:
                yield Finding(True, concept.id, f"a {concept.kind} stands below {parent!r}, another kind of concept")
    for fact in graph.facts:
        yield from _misplaced(graph, fact)


def _misplaced(graph: KnowledgeGraph, fact: Fact) -> Iterator[Finding]:
    """Errors of a fact: unknown relation or strength, or concepts of the wrong kind."""
    if fact.relation not in RELATIONS:
        yield Finding(True, _where(fact), "unknown relation")
        return
    if fact.strength not in STRENGTHS:
        yield Finding(True, _where(fact), f"unknown strength {fact.strength!r}")
    relation = RELATIONS[fact.relation]
    for end, kinds in ((fact.subject, relation.domain), (fact.value, (relation.range,))):
        if end not in graph.concepts:
            yield Finding(True, _where(fact), f"{end!r} does not exist")
        elif graph.concepts[end].kind not in kinds:
            yield Finding(True, _where(fact), f"{end!r} is a {graph.concepts[end].kind}, not a {' or a '.join(kinds)}")
    if relation.range == "quantity":
        try:
            parse_range(fact.note)
        except KnowledgeError as error:
            yield Finding(True, _where(fact), str(error))


def _cycles(graph: KnowledgeGraph) -> Iterator[Finding]:
    for concept in graph.concepts:
        above: set[str] = set()
        level = set(graph.concepts[concept].broader)
        while level - above:
            above |= level
            level = {p for one in level if one in graph.concepts for p in graph.concepts[one].broader}
        if concept in above:
            yield Finding(True, concept, "stands above itself")


def _contradictions(graph: KnowledgeGraph) -> Iterator[Finding]:
    for condition in graph.conditions:
        facts = graph.facts_of(condition.id)
        for relation, listed in facts.items():
            for value, count in Counter(fact.value for fact in listed).items():
                if count > 1:
                    yield Finding(True, f"{condition.id} {relation} {value}", "stated twice")
            held = [fact.value for fact in listed if fact.positive]
            if relation in RELATIONS and RELATIONS[relation].functional and len(held) != 1:
                yield Finding(True, f"{condition.id} {relation}", f"has {len(held)} values, where one is possible")
            yield from _denied_above(graph, listed)
        for one, other in _CLASHES:
            values = {fact.value for fact in facts.get(one, ()) if fact.positive}
            for fact in facts.get(other, ()):
                if fact.positive and fact.value in values:
                    yield Finding(True, _where(fact), f"contradicts {one} {fact.value}")


def _denied_above(graph: KnowledgeGraph, listed: tuple[Fact, ...]) -> Iterator[Finding]:
    """A positive fact below a value that is denied."""
    for one, other in combinations(listed, 2):
        for held, denied in ((one, other), (other, one)):
            if held.positive and not denied.positive and denied.value in graph.ancestors.get(held.value, ()):
                yield Finding(True, _where(held), f"falls under {denied.value}, which is never so")


def _citations(graph: KnowledgeGraph) -> Iterator[Finding]:
    for fact in graph.facts:
        if not fact.citation:
            yield Finding(True, _where(fact), "has no citation")
        elif fact.citation not in graph.citations:
            yield Finding(True, _where(fact), f"cites {fact.citation!r}, which is not in the bibliography")


def _names(graph: KnowledgeGraph) -> Iterator[Finding]:
    owners: dict[tuple[str, ...], str] = {}
    for concept in graph.concepts.values():
        for name in dict.fromkeys(concept.names):
            key = name_key(name)
            owner = owners.setdefault(key, concept.id)
            if not key:
                yield Finding(True, concept.id, f"the name {name!r} holds no word")
            elif owner != concept.id:
                yield Finding(True, concept.id, f"the name {name!r} already means {owner!r}")


def _thin(graph: KnowledgeGraph) -> Iterator[Finding]:
    for condition in graph.conditions:
        count = sum(map(len, graph.facts_of(condition.id).values()))
        if count < _FEW_FACTS:
            yield Finding(False, condition.id, f"has only {count} facts")
        if not condition.definition:
            yield Finding(False, condition.id, "has no definition")
