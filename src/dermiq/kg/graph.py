"""The knowledge graph: concepts, facts and citations as frozen, picklable records with look-ups."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from dermiq.kg.linking import name_key
from dermiq.kg.relations import CONDITION, RELATIONS, REVIEW_STATUS
from dermiq.schema import KnowledgeError


def identifier(name: str) -> str:
    """The identifier of a name: lower case, with ``_`` for every run of characters but letters and digits."""
    return re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")


@dataclass(frozen=True, slots=True)
class Citation:
    """The work that a fact cites."""

    id: str
    title: str
    publisher: str
    year: int
    licence: str

    def __str__(self) -> str:
        return f"{self.title} ({self.publisher}, {self.year})"


@dataclass(frozen=True, slots=True)
class Concept:
    """A condition, or a value that facts about conditions may take.

    Attributes:
        id: unique in the graph, the last part of its IRI.
        kind: a key of `dermiq.kg.relations.KINDS`.
        label: its name.
        synonyms: other names; no name belongs to two concepts.
        broader: identifiers of what it is a case or a part of.
        xrefs: identifiers in other vocabularies (``DOID:8295``), and labels of data sets that are no names.
        definition: one sentence, or empty.
    """

    id: str
    kind: str
    label: str
    synonyms: tuple[str, ...] = ()
    broader: tuple[str, ...] = ()
    xrefs: tuple[str, ...] = ()
    definition: str = ""

    @property
    def names(self) -> tuple[str, ...]:
        """The label, then the synonyms."""
        return (self.label, *self.synonyms)


@dataclass(frozen=True, slots=True)
class Fact:
    """One statement about a condition.

    Attributes:
        subject: identifier of a condition.
        relation: a key of `dermiq.kg.relations.RELATIONS`.
        value: identifier of a concept.
        strength: ``always``, ``typical``, ``possible`` or ``never``.
        closed: the condition's values of this relation are meant to be complete.
        citation: identifier of a citation.
        note: a qualification, such as the sign that distinguishes a differential.
        review: who has reviewed it.
    """

    subject: str
    relation: str
    value: str
    strength: str
    closed: bool
    citation: str
    note: str = ""
    review: str = REVIEW_STATUS

    @property
    def positive(self) -> bool:
        """True for a positive statement, False for one of strength ``never``."""
        return self.strength != "never"


@dataclass(frozen=True)
class KnowledgeGraph:
    """The graph, with the look-ups that scoring and retrieval need.

    Attributes:
        concepts: by identifier.
        facts: all facts, each (subject, relation, value) once.
        citations: by identifier.
    """

    concepts: Mapping[str, Concept]
    facts: tuple[Fact, ...]
    citations: Mapping[str, Citation] = field(default_factory=dict)

    @cached_property
    def by_name(self) -> dict[str, str]:
        """Name in lower case -> identifier; of two concepts with one name the first."""
        names: dict[str, str] = {}
        for concept in self.concepts.values():
            for name in concept.names:
                names.setdefault(name.lower(), concept.id)
        return names

    @cached_property
    def _folded(self) -> dict[tuple[str, ...], str]:
        """Name of a condition as a key -> identifier."""
        return {name_key(name): concept.id for concept in self.conditions for name in concept.names}

    @cached_property
    def _by_xref(self) -> dict[str, str]:
        """Identifier of a condition elsewhere, or its label in a data set, in lower case -> identifier."""
        return {xref.lower(): concept.id for concept in self.conditions for xref in concept.xrefs}

    @cached_property
    def _turned(self) -> dict[frozenset[str], str]:
        """Words of a name in any order -> the one condition with them: data sets turn names around."""
        by_words: dict[frozenset[str], set[str]] = {}
        for key, condition in self._folded.items():
            by_words.setdefault(_words(key), set()).add(condition)
        return {key: condition for key, (condition, *others) in by_words.items() if not others}

    @cached_property
    def _caused_by(self) -> dict[tuple[str, ...], str]:
        """Name of an agent as a key -> the one condition that it always causes ("head lice")."""
        caused: dict[str, set[str]] = {}
        for fact in self.facts:
            if fact.relation == "agent" and fact.strength == "always":
                caused.setdefault(fact.value, set()).add(fact.subject)
        return {
            name_key(name): condition
            for agent, (condition, *others) in caused.items()
            if not others and agent in self.concepts
            for name in self.concepts[agent].names
        }

    @cached_property
    def forms(self) -> dict[str, tuple[str, ...]]:
        """Identifier of a condition -> identifiers of those directly below it, where there are any."""
        below: dict[str, list[str]] = {}
        for concept in self.conditions:
            for parent in concept.broader:
                below.setdefault(parent, []).append(concept.id)
        return {parent: tuple(forms) for parent, forms in below.items()}

    @cached_property
    def ancestors(self) -> dict[str, frozenset[str]]:
        """Identifier -> identifiers of all its ancestors."""
        above: dict[str, frozenset[str]] = {}

        def climb(concept: str, path: tuple[str, ...]) -> frozenset[str]:
            if concept not in above and concept in self.concepts and concept not in path:
                parents = self.concepts[concept].broader
                above[concept] = frozenset(parents).union(*(climb(parent, (*path, concept)) for parent in parents))
            return above.get(concept, frozenset())

        for concept in self.concepts:
            climb(concept, ())
        return above

    @cached_property
    def _facts_of(self) -> dict[str, dict[str, tuple[Fact, ...]]]:
        grouped: dict[str, dict[str, list[Fact]]] = {}
        for fact in self.facts:
            grouped.setdefault(fact.subject, {}).setdefault(fact.relation, []).append(fact)
        return {
            subject: {relation: tuple(facts) for relation, facts in relations.items()}
            for subject, relations in grouped.items()
        }

    @cached_property
    def conditions(self) -> tuple[Concept, ...]:
        """All conditions, in the order of the graph."""
        return tuple(concept for concept in self.concepts.values() if concept.kind == CONDITION)

    def facts_of(self, condition: str) -> Mapping[str, tuple[Fact, ...]]:
        """Relation -> facts of a condition, given by identifier."""
        return self._facts_of.get(condition, {})

    def about(self, condition: str, relation: str) -> tuple[Fact, ...]:
        """The facts of a condition and a relation, inherited from the condition that it is a form of if it has none."""
        if own := self.facts_of(condition).get(relation):
            return own
        for parent in self.concepts[condition].broader:
            if inherited := self.about(parent, relation):
                return inherited
        return ()

    def related(self, one: str, other: str) -> bool:
        """True if two concepts are the same, or one is an ancestor of the other."""
        return one == other or one in self.ancestors[other] or other in self.ancestors[one]

    def label(self, concept: str) -> str:
        """The name of a concept given by identifier."""
        return self.concepts[concept].label

    def lookup(self, name: str) -> Concept | None:
        """The condition with that name or synonym, identifier or xref; None without one.

        Names may be in any number and spelling, and their words in any order.
        """
        found = self.concepts.get(self.by_name.get(name.strip().lower(), "") or identifier(name))
        if found and found.kind == CONDITION:
            return found
        key = name_key(name)
        found = self.concepts.get(self._folded.get(key, ""))
        found = found or self.concepts.get(self._by_xref.get(name.strip().lower(), ""))
        return found or self.concepts.get(self._caused_by.get(key) or self._turned.get(_words(key), ""))

    def find(self, name: str) -> Concept:
        """The condition that `lookup` finds.

        Raises:
            KnowledgeError: if there is none, naming the closest.
        """
        if found := self.lookup(name):
            return found
        labels = [concept.label for concept in self.conditions]
        close = difflib.get_close_matches(name[:100].lower(), labels, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(close)}?" if close else "`python -m dermiq.kg list` names them all."
        raise KnowledgeError(f"The knowledge graph has no condition {name[:100]!r}. {hint}")

    def cite(self, fact: Fact) -> str:
        """The citation of a fact as text."""
        citation = self.citations.get(fact.citation)
        return str(citation) if citation else "no citation"


def _words(key: Iterable[str]) -> frozenset[str]:
    """The words of a key without its marks."""
    return frozenset(part for part in key if part.isalnum())


def merged(graphs: Iterable[KnowledgeGraph]) -> KnowledgeGraph:
    """The union of graphs; later concepts, facts and citations replace earlier ones of the same key.

    A later concept keeps the earlier one's synonyms, parents and xrefs and adds its own. A later fact replaces the
    earlier one of the same subject, relation and value; of a functional relation, whichever value was there.
    """
    concepts: dict[str, Concept] = {}
    facts: dict[tuple[str, ...], Fact] = {}
    citations: dict[str, Citation] = {}
    for graph in graphs:
        for concept in graph.concepts.values():
            concepts[concept.id] = _joined(concepts.get(concept.id), concept)
        facts |= {_key(fact): fact for fact in graph.facts}
        citations |= graph.citations
    return KnowledgeGraph(concepts, tuple(facts.values()), citations)


def _key(fact: Fact) -> tuple[str, ...]:
    one_value = fact.positive and fact.relation in RELATIONS and RELATIONS[fact.relation].functional
    return (fact.subject, fact.relation) if one_value else (fact.subject, fact.relation, fact.value)


def _joined(old: Concept | None, new: Concept) -> Concept:
    if old is None:
        return new

    def both(name: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys((*getattr(old, name), *getattr(new, name))))

    synonyms = tuple(name for name in both("synonyms") if name != new.label)
    return Concept(
        new.id, new.kind, new.label, synonyms, both("broader"), both("xrefs"), new.definition or old.definition
    )
