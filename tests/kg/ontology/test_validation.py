"""Validation: one small graph per kind of finding, and none of them in a sound graph."""

import dataclasses

import pytest

from dermiq.kg.graph import Citation, Concept, Fact, KnowledgeGraph
from dermiq.kg.ontology.loading import load_graph
from dermiq.kg.ontology.validation import validate

WORK = Citation("work", "A work", "A publisher", 2020, "CC0 1.0")


def condition(name: str, **more) -> Concept:
    return Concept(name, "condition", name.replace("_", " "), definition="A disease.", **more)


def fact(subject: str, relation: str, value: str, strength: str = "typical", citation: str = "work") -> Fact:
    return Fact(subject, relation, value, strength, closed=False, citation=citation)


CONCEPTS = (
    condition("rash"),
    condition("red_rash", broader=("rash",)),
    Concept("body", "site", "body"),
    Concept("arm", "site", "arm", broader=("body",)),
    Concept("benign", "malignancy", "benign"),
    Concept("malignant", "malignancy", "malignant"),
    Concept("itch", "symptom", "itch"),
    Concept("cream", "treatment", "cream"),
    Concept("swab", "test", "swab"),
    Concept("scale", "dermoscopy", "white scale"),
)


def graph_of(*facts: Fact, concepts: tuple[Concept, ...] = ()) -> KnowledgeGraph:
    return KnowledgeGraph({one.id: one for one in (*CONCEPTS, *concepts)}, facts, {"work": WORK})


def errors(graph: KnowledgeGraph) -> list[str]:
    return [str(finding) for finding in validate(graph) if finding.error]


def test_a_sound_graph_has_no_errors():
    facts = (fact("rash", "site", "arm"), fact("rash", "malignancy", "benign"), fact("rash", "symptom", "itch"))
    assert errors(graph_of(*facts)) == []


def test_the_ontology_has_no_errors():
    assert errors(load_graph()) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (fact("rash", "site", "moon"), "rash site moon: 'moon' does not exist"),
        (fact("nothing", "site", "arm"), "'nothing' does not exist"),
        (fact("rash", "site", "itch"), "'itch' is a symptom, not a site"),
        (fact("arm", "symptom", "itch"), "'arm' is a site, not a condition"),
        (fact("rash", "smell", "itch"), "unknown relation"),
        (fact("rash", "symptom", "itch", strength="often"), "unknown strength 'often'"),
    ],
)
def test_a_dangling_fact(bad, message):
    assert any(message in error for error in errors(graph_of(bad)))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (condition("blue_rash", broader=("ghost",)), "stands below 'ghost', which does not exist"),
        (condition("blue_rash", broader=("arm",)), "a condition stands below 'arm', another kind"),
        (Concept("aura", "mood", "aura"), "unknown kind 'mood'"),
    ],
)
def test_a_dangling_concept(bad, message):
    assert any(message in error for error in errors(graph_of(concepts=(bad,))))


@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_cycle(length):
    ring = tuple(condition(f"ring {n}", broader=(f"ring {(n + 1) % length}",)) for n in range(length))
    found = errors(graph_of(concepts=ring))
    assert found == [f"error: ring {n}: stands above itself" for n in range(length)]


def test_below_a_cycle_is_not_in_it():
    ring = (condition("one", broader=("two",)), condition("two", broader=("one",)), condition("leaf", broader=("one",)))
    assert not any(error.startswith("error: leaf") for error in errors(graph_of(concepts=ring)))


@pytest.mark.parametrize(
    ("held", "other", "value"),
    [
        ("symptom", "absent_symptom", "itch"),
        ("dermoscopy", "dermoscopy_against", "scale"),
        ("first_line", "contraindicated", "cream"),
        ("second_line", "contraindicated", "cream"),
        ("test", "test_not_needed", "swab"),
    ],
)
def test_a_contradiction_between_relations(held, other, value):
    contrary = fact("rash", held, value), fact("rash", other, value)
    assert errors(graph_of(*contrary)) == [f"error: rash {other} {value}: contradicts {held} {value}"]


@pytest.mark.parametrize("strength", ["typical", "never"])
def test_a_fact_stated_twice(strength):
    twice = fact("rash", "symptom", "itch"), fact("rash", "symptom", "itch", strength=strength)
    assert errors(graph_of(*twice)) == ["error: rash symptom itch: stated twice"]


def test_something_so_below_something_never_so():
    facts = fact("rash", "site", "arm"), fact("rash", "site", "body", strength="never")
    assert errors(graph_of(*facts)) == ["error: rash site arm: falls under body, which is never so"]
    reverse = fact("rash", "site", "body"), fact("rash", "site", "arm", strength="never")
    assert errors(graph_of(*reverse)) == []


def test_a_functional_relation_with_two_values_or_none():
    two = fact("rash", "malignancy", "benign"), fact("rash", "malignancy", "malignant")
    assert errors(graph_of(*two)) == ["error: rash malignancy: has 2 values, where one is possible"]
    only_denied = fact("rash", "malignancy", "malignant", strength="never")
    assert errors(graph_of(only_denied)) == ["error: rash malignancy: has 0 values, where one is possible"]
    assert errors(graph_of(two[0], only_denied)) == []


def test_a_missing_citation():
    assert errors(graph_of(fact("rash", "symptom", "itch", citation=""))) == [
        "error: rash symptom itch: has no citation"
    ]
    assert errors(graph_of(fact("rash", "symptom", "itch", citation="lost"))) == [
        "error: rash symptom itch: cites 'lost', which is not in the bibliography"
    ]


@pytest.mark.parametrize("name", ["itch", "Itch", "itches"])
def test_a_name_of_two_concepts(name):
    twin = condition("twin", synonyms=(name,))
    assert errors(graph_of(concepts=(twin,))) == [f"error: twin: the name {name!r} already means 'itch'"]


def test_spelling_makes_no_second_name():
    american = Concept("tumor", "category", "tumor")
    british = condition("growth", synonyms=("tumours",))
    assert len(errors(graph_of(concepts=(american, british)))) == 1


@pytest.mark.parametrize("name", ["", "  ", "ผื่น"])
def test_a_name_without_a_word(name):
    found = errors(graph_of(concepts=(condition("twin", synonyms=(name,)),)))
    assert found == [f"error: twin: the name {name!r} holds no word"]


def test_thin_conditions_are_warned_of_after_the_errors():
    bare = dataclasses.replace(condition("bare"), definition="")
    findings = validate(graph_of(fact("rash", "symptom", "itch", citation=""), concepts=(bare,)))
    assert [finding.error for finding in findings] == [True] + [False] * (len(findings) - 1)
    assert {"warning: bare: has no definition", "warning: bare: has only 0 facts"} <= set(map(str, findings))
    assert "warning: rash: has only 1 facts" in map(str, findings)
