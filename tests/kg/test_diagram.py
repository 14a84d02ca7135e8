"""The diagram of a condition: valid, complete, and with no text over another or beyond its box."""

from __future__ import annotations

import re
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from dermiq.kg import Concept, Fact, KnowledgeGraph, load_graph
from dermiq.kg.diagram import neighbourhood_svg
from dermiq.kg.verbalising import written
from dermiq.schema import KnowledgeError

GRAPH = load_graph()
NAMESPACE = "{http://www.w3.org/2000/svg}"
DIAGRAMS = [(concept, ElementTree.fromstring(neighbourhood_svg(GRAPH, concept.id))) for concept in GRAPH.conditions]


def width(text: str, size: float, bold: bool) -> float:
    """An upper bound for the fonts that the diagram names: they are about as wide as Verdana."""
    em = sum(0.42 if c in "iljtfr.,'() -" else 0.98 if c in "mwMW" else 0.78 if c.isupper() else 0.64 for c in text)
    return em * size * (1.14 if bold else 1.0)


def extents(diagram: ElementTree.Element) -> list[tuple[float, float, float, str]]:
    """(first x, last x, base line, text) of every text."""
    found = []
    for node in diagram.iter(f"{NAMESPACE}text"):
        text, x = node.text or "", float(node.get("x", 0))
        long = width(text, float(node.get("font-size", 14)), node.get("font-weight") == "bold")
        first = {"end": x - long, "middle": x - long / 2}.get(node.get("text-anchor", ""), x)
        found.append((first, first + long, float(node.get("y", 0)), text))
    return found


def test_texts_stay_on_the_sheet_and_clear_of_each_other() -> None:
    for concept, diagram in DIAGRAMS:
        sheet = [float(number) for number in diagram.get("viewBox", "").split()]
        texts = extents(diagram)
        assert texts, concept.id
        for first, last, y, text in texts:
            assert 0 <= first and last <= sheet[2] and 14 <= y <= sheet[3] - 4, (concept.id, text)
        for index, one in enumerate(texts):
            for other in texts[index + 1 :]:
                apart = abs(one[2] - other[2]) >= 17 or one[1] <= other[0] or other[1] <= one[0]
                assert apart, (concept.id, one, other)


def test_texts_stay_in_their_boxes() -> None:
    for concept, diagram in DIAGRAMS:
        boxes = [
            tuple(float(node.get(name, 0)) for name in ("x", "y", "width", "height"))
            for node in diagram.iter(f"{NAMESPACE}rect")
            if node.get("rx")
        ]
        assert boxes, concept.id
        boxed = 0
        for first, last, y, text in extents(diagram):
            for x, top, wide, high in boxes:
                if top < y < top + high and x < (first + last) / 2 < x + wide:
                    boxed += 1
                    assert x + 4 <= first and last <= x + wide - 4 and y <= top + high - 4, (concept.id, text)
        legend = 5
        assert boxed == len(extents(diagram)) - legend
        columns: dict[float, list[tuple[float, float]]] = {}
        for x, top, _, high in boxes:
            columns.setdefault(x, []).append((top, top + high))
        for column in columns.values():
            for above, below in pairwise(sorted(column)):
                assert above[1] < below[0]


def test_typical_values_are_shown_and_the_rest_is_counted() -> None:
    for concept, diagram in DIAGRAMS:
        shown = re.sub(r"\s", "", "".join(node.text or "" for node in diagram.iter(f"{NAMESPACE}text")))
        dots = len(list(diagram.iter(f"{NAMESPACE}circle"))) - 4
        more = sum(
            int(found[1])
            for node in diagram.iter(f"{NAMESPACE}text")
            if (found := re.fullmatch(r"\+ (\d+) more", node.text or ""))
        )
        relations = {name for one in (concept.id, *GRAPH.ancestors[concept.id]) for name in GRAPH.facts_of(one)}
        held = [fact for name in relations for fact in GRAPH.about(concept.id, name) if fact.positive]
        assert dots + more == len(held), concept.id
        for fact in (fact for fact in held if fact.strength == "always" and fact.relation in ("agent", "malignancy")):
            assert re.sub(r"\s", "", written(GRAPH.label(fact.value))) in shown


def test_strengths_differ_in_more_than_colour() -> None:
    concepts = {
        "pox": Concept("pox", "condition", 'pox & <"pest">'),
        **{value: Concept(value, "site", value) for value in ("face", "hand", "foot", "ear", "knee")},
    }
    facts = [
        Fact("pox", "site", value, strength, False, "book")
        for value, strength in (
            ("face", "always"),
            ("hand", "typical"),
            ("foot", "possible"),
            ("ear", "rare"),
            ("knee", "never"),
        )
    ]
    diagram = ElementTree.fromstring(neighbourhood_svg(KnowledgeGraph(concepts, tuple(facts)), "pox"))
    legend, lines = 4, list(diagram.iter(f"{NAMESPACE}line"))
    styles = {(node.get("stroke-width"), node.get("stroke-dasharray")) for node in lines[:legend]}
    assert len(styles) == 4
    assert styles <= {(node.get("stroke-width"), node.get("stroke-dasharray")) for node in lines[legend:]}
    texts = [node.text for node in diagram.iter(f"{NAMESPACE}text")]
    assert "knee" not in texts and {"face", "hand", "foot", "ear"} <= set(texts)
    assert 'Pox & <"pest">' in texts


def test_accessible_and_self_contained() -> None:
    diagram = DIAGRAMS[0][1]
    label = DIAGRAMS[0][0].label
    assert label in (diagram.findtext(f"{NAMESPACE}title") or "").lower()
    assert label in (diagram.findtext(f"{NAMESPACE}desc") or "").lower()
    assert diagram.get("role") == "img"
    text = ElementTree.tostring(diagram, encoding="unicode")
    assert "href" not in text and "url(" not in text and "<script" not in text
    assert "not reviewed by a clinician" in text


def test_condition_without_facts_and_long_words() -> None:
    concepts = {"x": Concept("x", "condition", "y" * 90), "s": Concept("s", "site", "w" * 90)}
    empty = ElementTree.fromstring(neighbourhood_svg(KnowledgeGraph(concepts, ()), "x"))
    assert len(list(empty.iter(f"{NAMESPACE}rect"))) == 2
    full = KnowledgeGraph(concepts, (Fact("x", "site", "s", "always", False, "book"),))
    texts = [node.text for node in ElementTree.fromstring(neighbourhood_svg(full, "x")).iter(f"{NAMESPACE}text")]
    assert "".join(text or "" for text in texts).count("w" * 36) == 2


def test_unknown_condition() -> None:
    with pytest.raises(KnowledgeError, match="no condition"):
        neighbourhood_svg(GRAPH, "martian pox")
