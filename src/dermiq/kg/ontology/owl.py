"""Reading of OWL files into a knowledge graph; the only module that imports owlready2.

A file is read from bytes into a private world of its own: nothing is fetched, no process is forked, nothing
outlives the call.
"""

from __future__ import annotations

import gzip
import io
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

from owlready2 import World

from dermiq.kg.graph import Citation, Concept, Fact, KnowledgeGraph
from dermiq.kg.ontology.writing import BASE, BROADER, CONCEPTS, DC_TERMS, OBO, OBO_IN_OWL, OWL, WORKS
from dermiq.kg.relations import KINDS, RELATIONS, REVIEW_STATUS, STRENGTHS
from dermiq.schema import KnowledgeError

MAX_BYTES = 256 * 2**20
# owlready2 reads in small pieces, and expat begins a token anew with every piece: 8 MB in one token take 15 seconds.
_MAX_TOKEN = 2**20
_LONG_TAG = re.compile(rb"<[^<>]{%d}" % _MAX_TOKEN)
_TOO_LONG = "holds a comment or a tag of more than 1 MiB, which takes too long to parse. Delete it."
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_RDFS = "http://www.w3.org/2000/01/rdf-schema#"
_OTHER_FORMATS = {
    "@prefix": "Turtle",
    "@base": "Turtle",
    "prefix ": "Turtle",
    "prefix(": "OWL functional syntax",
    "ontology(": "OWL functional syntax",
    "prefix:": "Manchester syntax",
    "format-version:": "OBO",
    "{": "JSON",
    "<http": "N-Triples",
    "_:": "N-Triples",
}
_REMEDY = "Save it as RDF/XML, for instance with Protégé or ROBOT."


@dataclass
class Node:
    """One IRI or blank node of an OWL file: its literals and links by property IRI."""

    literals: dict[str, list[str]] = field(default_factory=dict)
    links: dict[str, list[str]] = field(default_factory=dict)

    def literal(self, name: str, default: str = "") -> str:
        """The first literal of a property."""
        return self.literals.get(name, [default])[0]

    def link(self, name: str) -> str:
        """The first link of a property, empty if there is none."""
        return self.links.get(name, [""])[0]


def read_bytes(path: Path) -> bytes:
    """The bytes of a file, unpacked if it is gzipped.

    Raises:
        KnowledgeError: if it cannot be read or is larger than 256 MiB.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        if data[:2] == b"\x1f\x8b":
            with gzip.open(io.BytesIO(data)) as unpacked:
                data = unpacked.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise KnowledgeError(f"{path} cannot be read: {error}") from error
    if len(data) > MAX_BYTES:
        raise KnowledgeError(f"{path} holds more than {MAX_BYTES // 2**20} MiB. Cut it to the part that is needed.")
    return data


def read_nodes(data: bytes, name: str = "the ontology") -> dict[str, Node]:
    """The nodes of an RDF/XML document by IRI.

    Raises:
        KnowledgeError: if it is of another format, not well-formed, holds a DOCTYPE or imports another ontology.
    """
    _inspect(data, name)
    world = World()
    try:
        world.get_ontology(BASE).load(fileobj=io.BytesIO(data))
        triples = list(world.get_triples(None, None, None))
        numbers = {number for triple in triples for number in triple if isinstance(number, int)}
        iri = {number: world._unabbreviate(number) if number > 0 else f"_:{number}" for number in numbers}
    except Exception as error:  # owlready2 raises whatever its parser meets
        raise KnowledgeError(f"{name} is not an OWL ontology: {type(error).__name__}: {error}. {_REMEDY}") from error
    finally:
        world.close()
    nodes: dict[str, Node] = {}
    for subject, predicate, value in triples:
        node = nodes.setdefault(iri[subject], Node())
        if isinstance(value, int):
            node.links.setdefault(iri[predicate], []).append(iri[value])
        else:
            node.literals.setdefault(iri[predicate], []).append(value[1 : value.rindex('"')])
    return nodes


def _check_format(data: bytes, name: str) -> None:
    """Refuse other formats by name: owlready2 would call them all bad N-Triples."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise KnowledgeError(f"{name} is encoded as UTF-16, which is not read. Save it as UTF-8.")
    head = map(str.strip, data[:4096].decode("utf-8-sig", "replace").splitlines())
    start = next((line for line in head if line and not line.startswith("#")), "").lower()
    for prefix, form in _OTHER_FORMATS.items():
        if start.startswith(prefix):
            raise KnowledgeError(f"{name} is {form}, which is not read. {_REMEDY}")


def _inspect(data: bytes, name: str) -> None:
    """Refuse what owlready2 would fetch, expand without limit, or report under a wrong name."""
    _check_format(data, name)
    if _LONG_TAG.search(data):
        raise KnowledgeError(f"{name} {_TOO_LONG}")

    def comment(text: str) -> None:
        if len(text) > _MAX_TOKEN:
            raise KnowledgeError(f"{name} {_TOO_LONG}")

    def doctype(*_: object) -> None:
        raise KnowledgeError(f"{name} holds a DOCTYPE, whose entities could fill the memory. {_REMEDY}")

    def element(tag: str, _: Mapping[str, str]) -> None:
        if not seen and tag != f"{_RDF} RDF":
            form = "OWL/XML" if tag.startswith(OWL) else f"XML of another kind (<{tag.split()[-1]}>)"
            raise KnowledgeError(f"{name} is {form}, which is not read. {_REMEDY}")
        seen.append(True)
        if tag == f"{OWL} imports":
            raise KnowledgeError(
                f"{name} imports another ontology, and nothing is fetched here. Merge the two into one file "
                "(Protégé: Refactor, Merge ontologies), or delete the owl:imports line."
            )

    seen: list[bool] = []
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartDoctypeDeclHandler = doctype
    parser.StartElementHandler = element
    parser.CommentHandler = comment
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, LookupError, ValueError) as error:  # the latter two: an encoding it does not know
        raise KnowledgeError(f"{name} is no well-formed XML: {error}. Is it complete?") from error


def read_graph(data: bytes, name: str = "the ontology") -> KnowledgeGraph:
    """The graph of an ontology in DermIQ's vocabulary.

    Raises:
        KnowledgeError: if it cannot be read, or a fact's strength is none of the five.
    """
    nodes = read_nodes(data, name)
    kinds = {BASE + kind: kind for kind in KINDS}
    concepts: dict[str, Concept] = {}
    citations: dict[str, Citation] = {}
    facts: list[Fact] = []
    for iri, node in nodes.items():
        types = node.links.get(f"{_RDF}type", [])
        if kind := next((kinds[one] for one in types if one in kinds), None):
            concepts[_short(iri)] = _concept(_short(iri), kind, node)
        elif BASE + "work" in types:
            citations[_short(iri)] = _citation(_short(iri), node, name)
        elif f"{OWL}Axiom" in types:
            facts += _fact(node, name, "annotatedSource", "annotatedProperty", "annotatedTarget")
        elif f"{OWL}NegativePropertyAssertion" in types:
            facts += _fact(node, name, "sourceIndividual", "assertionProperty", "targetIndividual")
    if not concepts:
        raise KnowledgeError(
            f"{name} holds no concept of DermIQ's vocabulary ({BASE}). To take synonyms and definitions from another "
            "ontology, use `python -m dermiq.kg import`."
        )
    return KnowledgeGraph(concepts, tuple(facts), citations)


def _short(iri: str) -> str:
    for base in (BASE, CONCEPTS, WORKS):
        iri = iri.removeprefix(base)
    return iri


def _concept(identifier: str, kind: str, node: Node) -> Concept:
    parents = node.links.get(BASE + BROADER.get(kind, "broader"), [])
    return Concept(
        id=identifier,
        kind=kind,
        label=node.literal(f"{_RDFS}label", identifier),
        synonyms=tuple(node.literals.get(f"{OBO_IN_OWL}hasExactSynonym", ())),
        broader=tuple(map(_short, parents)),
        xrefs=tuple(node.literals.get(f"{OBO_IN_OWL}hasDbXref", ())),
        definition=node.literal(f"{OBO}IAO_0000115"),
    )


def _citation(identifier: str, node: Node, name: str) -> Citation:
    title, publisher, year, licence = (
        node.literal(DC_TERMS + key) for key in ("title", "publisher", "date", "license")
    )
    if not year.isdecimal():
        raise KnowledgeError(f"{name}: citation {identifier!r} has the year {year!r}; write four digits (terms:date).")
    return Citation(identifier, title, publisher, int(year), licence)


def _fact(node: Node, name: str, source: str, relation: str, target: str) -> list[Fact]:
    property_ = node.link(OWL + relation)
    if _short(property_) not in RELATIONS:  # an annotation of something else, such as a synonym
        return []
    subject, value = _short(node.link(OWL + source)), _short(node.link(OWL + target))
    strength = node.literal(BASE + "strength", "never" if source == "sourceIndividual" else "typical")
    if strength not in STRENGTHS:
        raise KnowledgeError(f"{name}: {subject} {_short(property_)} {value} is {strength!r}, none of {STRENGTHS}.")
    return [
        Fact(
            subject=subject,
            relation=_short(property_),
            value=value,
            strength=strength,
            closed=node.literal(BASE + "closed") == "true",
            citation=_short(node.link(BASE + "citation")),
            note=node.literal(BASE + "note"),
            review=node.literal(BASE + "review", REVIEW_STATUS),
        )
    ]
