"""Writing of the knowledge graph as RDF/XML, the same bytes for the same graph.

Concepts are named individuals, typed by their kind. A fact is a property assertion whose strength, citation and
review are an axiom annotation of OWL 2; a fact of strength ``never`` is a negative property assertion.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape, quoteattr

from dermiq.kg.graph import Citation, Concept, Fact, KnowledgeGraph
from dermiq.kg.relations import CONDITION, KINDS, RELATIONS

BASE = "urn:dermiq:kg#"  # kinds, relations, annotations
CONCEPTS = "urn:dermiq:concept#"
WORKS = "urn:dermiq:work#"
OBO = "http://purl.obolibrary.org/obo/"
OBO_IN_OWL = "http://www.geneontology.org/formats/oboInOwl#"
DC_TERMS = "http://purl.org/dc/terms/"
OWL = "http://www.w3.org/2002/07/owl#"
XSD = "http://www.w3.org/2001/XMLSchema#"

_HEAD = f"""<?xml version="1.0" encoding="UTF-8"?>
<rdf:RDF
    xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
    xmlns:rdfs="http://www.w3.org/2000/01/rdf-schema#"
    xmlns:owl="{OWL}"
    xmlns:obo="{OBO}"
    xmlns:oboInOwl="{OBO_IN_OWL}"
    xmlns:terms="{DC_TERMS}"
    xmlns="{BASE}"
    xml:base="{BASE.rstrip("#")}">
<owl:Ontology rdf:about="{BASE.rstrip("#")}">
  <terms:title>DermIQ's ontology of skin conditions</terms:title>
  <terms:license>Apache-2.0</terms:license>
  <rdfs:comment>For research on language models. Not reviewed by a clinician; no medical advice.</rdfs:comment>
</owl:Ontology>
"""
_ANNOTATIONS = ("strength", "closed", "citation", "note", "review")
_FOREIGN = (
    f"{OBO_IN_OWL}hasExactSynonym",
    f"{OBO_IN_OWL}hasDbXref",
    f"{OBO}IAO_0000115",
    *(f"{DC_TERMS}{name}" for name in ("title", "publisher", "date", "license")),
)
BROADER = {CONDITION: "subtype_of", "site": "part_of"}


def to_rdf_xml(graph: KnowledgeGraph) -> str:
    """The whole graph as one RDF/XML document."""
    parts = [_HEAD, *_schema()]
    parts += map(_citation, graph.citations.values())
    parts += (_concept(concept) for concept in graph.concepts.values())
    for fact in graph.facts:
        parts.append(_assertion(fact) if fact.positive else _denial(fact))
    return "".join((*parts, "</rdf:RDF>\n"))


def _schema() -> Iterator[str]:
    for name in (*(f"{BASE}{name}" for name in _ANNOTATIONS), *_FOREIGN):
        yield f"<owl:AnnotationProperty rdf:about={quoteattr(name)}/>\n"
    yield _class("work", "a work in which facts can be looked up")
    for kind, meaning in KINDS.items():
        yield _class(kind, meaning)
    for name in ("broader", "part_of"):
        yield f'<owl:ObjectProperty rdf:about="{BASE}{name}"/>\n'
    for relation in RELATIONS.values():
        domains = "".join(f'  <rdfs:domain rdf:resource="{BASE}{kind}"/>\n' for kind in relation.domain)
        functional = f'  <rdf:type rdf:resource="{OWL}FunctionalProperty"/>\n' if relation.functional else ""
        yield (
            f'<owl:ObjectProperty rdf:about="{BASE}{relation.name}">\n{functional}'
            f"  <rdfs:label>{escape(relation.phrase)}</rdfs:label>\n"
            f"{domains}"
            f'  <rdfs:range rdf:resource="{BASE}{relation.range}"/>\n</owl:ObjectProperty>\n'
        )


def _class(name: str, meaning: str) -> str:
    return (
        f'<owl:Class rdf:about="{BASE}{name}">\n  <rdfs:label>{escape(name.replace("_", " "))}</rdfs:label>\n'
        f"  <rdfs:comment>{escape(meaning)}</rdfs:comment>\n</owl:Class>\n"
    )


def _individual(iri: str, kind: str, body: str) -> str:
    return (
        f"<owl:NamedIndividual rdf:about={quoteattr(iri)}>\n"
        f'  <rdf:type rdf:resource="{BASE}{kind}"/>\n{body}</owl:NamedIndividual>\n'
    )


def _element(name: str, text: str) -> str:
    return f"  <{name}>{escape(text)}</{name}>\n"


def _citation(citation: Citation) -> str:
    body = (
        _element("terms:title", citation.title)
        + _element("terms:publisher", citation.publisher)
        + _element("terms:date", str(citation.year))
        + _element("terms:license", citation.licence)
    )
    return _individual(WORKS + citation.id, "work", body)


def _concept(concept: Concept) -> str:
    body = _element("rdfs:label", concept.label)
    body += "".join(_element("oboInOwl:hasExactSynonym", name) for name in concept.synonyms)
    body += "".join(_element("oboInOwl:hasDbXref", xref) for xref in concept.xrefs)
    if concept.definition:
        body += _element("obo:IAO_0000115", concept.definition)
    if concept.kind != CONDITION:  # a condition's parents are among its facts
        name = BROADER.get(concept.kind, "broader")
        body += "".join(f"  <{name} rdf:resource={quoteattr(CONCEPTS + parent)}/>\n" for parent in concept.broader)
    return _individual(CONCEPTS + concept.id, concept.kind, body)


def _details(fact: Fact) -> str:
    note = _element("note", fact.note) if fact.note else ""
    return (
        _element("strength", fact.strength)
        + f'  <closed rdf:datatype="{XSD}boolean">{str(fact.closed).lower()}</closed>\n'
        + f"  <citation rdf:resource={quoteattr(WORKS + fact.citation)}/>\n"
        + note
        + _element("review", fact.review)
    )


def _assertion(fact: Fact) -> str:
    subject, value = quoteattr(CONCEPTS + fact.subject), quoteattr(CONCEPTS + fact.value)
    return (
        f"<rdf:Description rdf:about={subject}><{fact.relation} rdf:resource={value}/></rdf:Description>\n"
        f"<owl:Axiom>\n  <owl:annotatedSource rdf:resource={subject}/>\n"
        f'  <owl:annotatedProperty rdf:resource="{BASE}{fact.relation}"/>\n'
        f"  <owl:annotatedTarget rdf:resource={value}/>\n{_details(fact)}</owl:Axiom>\n"
    )


def _denial(fact: Fact) -> str:
    return (
        "<owl:NegativePropertyAssertion>\n"
        f"  <owl:sourceIndividual rdf:resource={quoteattr(CONCEPTS + fact.subject)}/>\n"
        f'  <owl:assertionProperty rdf:resource="{BASE}{fact.relation}"/>\n'
        f"  <owl:targetIndividual rdf:resource={quoteattr(CONCEPTS + fact.value)}/>\n{_details(fact)}"
        "</owl:NegativePropertyAssertion>\n"
    )
