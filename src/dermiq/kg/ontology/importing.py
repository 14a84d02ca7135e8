"""Import of names, definitions and identifiers from OBO ontologies (Disease Ontology, Symptom Ontology).

A concept takes them from the class that it names among its xrefs, never from one that merely has the same name.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dermiq.kg.graph import Concept, KnowledgeGraph
from dermiq.kg.linking import name_key
from dermiq.kg.ontology.owl import Node, read_bytes, read_nodes
from dermiq.kg.ontology.writing import OBO, OBO_IN_OWL, OWL
from dermiq.schema import KnowledgeError

_LABEL = "http://www.w3.org/2000/01/rdf-schema#label"
_TYPE = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type"
_REPLACED_BY = f"{OBO}IAO_0100001"
_CLASS = re.compile(re.escape(OBO) + r"([A-Za-z]+)_\w+")
_FEW_LETTERS = 4  # abbreviations so short mean too many things


@dataclass(frozen=True, slots=True)
class Skipped:
    """A synonym or an identifier that was not imported.

    Attributes:
        concept: identifier of our concept.
        what: the synonym or the identifier.
        why: the reason.
    """

    concept: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.concept}: {self.what!r} {self.why}"


@dataclass(frozen=True)
class Enrichment:
    """Summary of an import.

    Attributes:
        matched: our concepts with a class in a source.
        synonyms: synonyms added.
        definitions: definitions added.
        xrefs: identifiers added.
        skipped: what was not imported, and why.
        unknown: our (concept, xref) of a source's vocabulary that the source lacks.
    """

    matched: int
    synonyms: int
    definitions: int
    xrefs: int
    skipped: tuple[Skipped, ...]
    unknown: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        lines = [
            f"Matched {self.matched} concepts; added {self.synonyms} synonyms, {self.definitions} definitions and "
            f"{self.xrefs} identifiers; left {len(self.skipped)}."
        ]
        lines += [f"left: {one}" for one in self.skipped]
        lines += [f"not in the source: {concept}: {xref}" for concept, xref in self.unknown]
        return "\n".join(lines)


def enrich(graph: KnowledgeGraph, sources: Sequence[Path]) -> tuple[KnowledgeGraph, Enrichment]:
    """The graph with synonyms, definitions and identifiers of other ontologies, and a summary.

    From the class that an xref names, or the one that has replaced it, a concept takes the label and the exact
    synonyms as synonyms, the definition if it has none, and the identifiers.

    Args:
        graph: ours; facts and citations do not change.
        sources: OBO-style ontologies in RDF/XML, plain or gzipped, whose classes are called as in
            ``http://purl.obolibrary.org/obo/DOID_8893``; that one is our xref ``DOID:8893``.

    Raises:
        KnowledgeError: if a source cannot be read, or has no such class.
    """
    adding = _Adding(graph)
    for path in sources:
        adding.take(_classes(read_nodes(read_bytes(path), str(path)), path))
    return replace(graph, concepts=adding.concepts), adding.report()


def _classes(nodes: Mapping[str, Node], path: Path) -> dict[str, Node]:
    """Identifier (``DOID:8893``) -> node, of the vocabulary to which most of a file's named classes belong."""
    named = {
        match: node
        for iri, node in nodes.items()
        if _LABEL in node.literals and f"{OWL}Class" in node.links.get(_TYPE, ()) and (match := _CLASS.fullmatch(iri))
    }
    count = Counter(match[1] for match in named)
    if not count:
        raise KnowledgeError(
            f"{path} has no class such as {OBO}DOID_8893. Take doid.owl of the Disease Ontology or symp.owl of the "
            "Symptom Ontology."
        )
    vocabulary = count.most_common(1)[0][0]
    return {_xref(match[0]): node for match, node in named.items() if match[1] == vocabulary}


def _xref(iri: str) -> str:
    return iri.removeprefix(OBO).replace("_", ":", 1)


def _current(classes: Mapping[str, Node], xref: str) -> tuple[str, str]:
    """The class that an identifier stands for today; if it is empty, why there is none."""
    seen = {xref}
    while _deprecated(classes[xref]):
        xref = _xref(classes[xref].link(_REPLACED_BY) or classes[xref].literal(_REPLACED_BY))
        if xref in seen or xref not in classes:
            return "", "is deprecated and has no replacement there"
        seen.add(xref)
    return xref, ""


def _deprecated(node: Node) -> bool:
    return node.literal(f"{OWL}deprecated") in ("true", "1")


class _Adding:
    """The state of an import: concepts so far, the owners of names and identifiers, and counts."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self.concepts = dict(graph.concepts)
        self._ours = graph.concepts
        self._names: dict[tuple[str, ...], str] = {}
        self._xrefs: dict[str, str] = {}
        for concept in graph.concepts.values():
            for name in concept.names:
                self._names.setdefault(name_key(name), concept.id)
            for xref in concept.xrefs:
                self._xrefs.setdefault(xref, concept.id)
        self._matched: set[str] = set()
        self._count: Counter[str] = Counter()
        self._skipped: list[Skipped] = []
        self._unknown: list[tuple[str, str]] = []

    def take(self, classes: Mapping[str, Node]) -> None:
        """Import from the classes of one source."""
        vocabulary = next(iter(classes)).partition(":")[0] + ":"
        for concept in self._ours.values():
            for xref in concept.xrefs:
                if xref not in classes:
                    if xref.startswith(vocabulary):
                        self._unknown.append((concept.id, xref))
                    continue
                current, why_not = _current(classes, xref)
                if why_not:
                    self._skipped.append(Skipped(concept.id, xref, why_not))
                else:
                    self._matched.add(concept.id)
                    self._join(self.concepts[concept.id], current, classes[current])

    def _join(self, concept: Concept, xref: str, node: Node) -> None:
        offered = (*node.literals[_LABEL], *node.literals.get(f"{OBO_IN_OWL}hasExactSynonym", ()))
        synonyms = tuple(self._new_names(concept.id, offered))
        xrefs = tuple(self._new_xrefs(concept.id, (xref, *node.literals.get(f"{OBO_IN_OWL}hasDbXref", ()))))
        definition = "" if concept.definition else node.literal(f"{OBO}IAO_0000115")
        self._count.update(synonyms=len(synonyms), xrefs=len(xrefs), definitions=bool(definition))
        self.concepts[concept.id] = replace(
            concept,
            synonyms=concept.synonyms + synonyms,
            xrefs=concept.xrefs + xrefs,
            definition=concept.definition or definition,
        )

    def _new_names(self, concept: str, names: Iterable[str]) -> Iterator[str]:
        for name in (" ".join(name.split()) for name in names):
            key = name_key(name)
            owner = self._names.get(key)
            if owner == concept:
                continue
            if sum(map(str.isalpha, name)) <= _FEW_LETTERS:
                self._skipped.append(Skipped(concept, name, f"has {_FEW_LETTERS} letters or fewer"))
            elif not key:
                self._skipped.append(Skipped(concept, name, "holds no word"))
            elif owner:
                self._skipped.append(Skipped(concept, name, f"already means {owner!r}"))
            else:
                self._names[key] = concept
                yield name

    def _new_xrefs(self, concept: str, xrefs: Iterable[str]) -> Iterator[str]:
        for xref in xrefs:
            owner = self._xrefs.setdefault(xref, "")
            if not owner:
                self._xrefs[xref] = concept
                yield xref
            elif owner != concept:
                self._skipped.append(Skipped(concept, xref, f"already identifies {owner!r}"))

    def report(self) -> Enrichment:
        """The summary."""
        return Enrichment(
            matched=len(self._matched),
            synonyms=self._count["synonyms"],
            definitions=self._count["definitions"],
            xrefs=self._count["xrefs"],
            skipped=tuple(self._skipped),
            unknown=tuple(self._unknown),
        )
