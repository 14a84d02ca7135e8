"""The card of a condition: it says everything, in 80 columns."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from dermiq.kg import Citation, Concept, Fact, KnowledgeGraph, load_graph
from dermiq.kg.condition_page import WIDTH, describe
from dermiq.kg.verbalising import written
from dermiq.schema import KnowledgeError

GRAPH = load_graph()


def flat(text: str) -> str:
    return re.sub(r"\s+", " ", text)


def test_every_card_fits_the_terminal_and_names_every_value() -> None:
    for concept in GRAPH.conditions:
        card = describe(GRAPH, concept.label)
        assert max(map(len, card.splitlines())) <= WIDTH
        assert card.lower().startswith(concept.label)
        # A line may break after a hyphen.
        closed_up = re.sub(r"\s", "", card)
        for facts in GRAPH.facts_of(concept.id).values():
            for fact in facts:
                assert re.sub(r"\s", "", written(GRAPH.label(fact.value))) in closed_up, (concept.id, fact)


def test_sources_are_numbered_without_gaps_and_all_used() -> None:
    body, sources = describe(GRAPH, "melanoma").split("\nSOURCES\n")
    listed = re.findall(r"^  \[(\d+)\]", sources, re.MULTILINE)
    assert listed == [str(number) for number in range(1, len(listed) + 1)]
    assert set(re.findall(r"\[(\d+)\]", body)) == set(listed)


def small(**changes: object) -> KnowledgeGraph:
    concepts = [
        Concept("pox", "condition", "pox", ("plague",), (), ("DOID:1",), "A made-up disease."),
        Concept("small_pox", "condition", "small pox", broader=("pox",)),
        Concept("face", "site", "face"),
        Concept("benign", "malignancy", "benign"),
    ]
    facts = [
        replace(Fact("pox", "malignancy", "benign", "always", True, "book"), **changes),  # type: ignore[arg-type]
        Fact("pox", "site", "face", "never", False, "paper", "mostly at night"),
    ]
    citations = {key: Citation(key, key.title(), "Press", 2000, "open") for key in ("book", "paper")}
    return KnowledgeGraph({concept.id: concept for concept in concepts}, tuple(facts), citations)


def test_card_in_full() -> None:
    assert describe(small(), "plague") == "\n".join(
        [
            "Pox",
            "===",
            "A made-up disease.",
            "Also called: plague",
            "Elsewhere: DOID:1",
            "",
            "WHAT IT IS",
            "  Malignancy (complete list)",
            "    always     benign [1]",
            "",
            "WHAT IT LOOKS LIKE",
            "  Sites",
            "    never      face (mostly at night) [2]",
            "",
            "SOURCES",
            "  [1] Book (Press, 2000)",
            "  [2] Paper (Press, 2000)",
            "",
            "Review: No clinician has reviewed any of these 2 facts. They are no medical",
            "  advice.",
        ]
    )


def test_inherited_facts_say_whose_they_are() -> None:
    assert "Malignancy (as pox, complete list)" in describe(small(), "small pox")


def test_partial_review_is_counted() -> None:
    text = flat(describe(small(review="reviewed by Dr X"), "pox"))
    assert "1 of these 2 facts: reviewed by Dr X." in text
    assert "1 of these 2 facts: not reviewed by a clinician." in text


def test_condition_without_facts() -> None:
    graph = KnowledgeGraph({"pox": Concept("pox", "condition", "pox")}, ())
    assert describe(graph, "pox").endswith("The graph holds no facts about it.")


def test_unknown_condition() -> None:
    with pytest.raises(KnowledgeError, match=r"no condition 'melanomma'\. Did you mean .*melanoma"):
        describe(GRAPH, "melanomma")
