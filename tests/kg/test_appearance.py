"""Appearance: the ontology's facts as probabilities of what can be seen, by one rule."""

import pytest

from dermiq.findings import ATTRIBUTES, VOCABULARY
from dermiq.kg import Concept, Fact, KnowledgeGraph, load_graph
from dermiq.kg.appearance import DEFAULTS, RELATIONS, VALUES, appearance, typical
from dermiq.kg.relations import RELATIONS as ALL
from dermiq.schema import KnowledgeError

GRAPH = load_graph()


def toy(*facts):
    """A graph of one condition, whose facts are (relation, value, strength)."""
    concepts = [Concept("spot", "condition", "spot"), Concept("knee", "site", "knee", broader=("limbs",))]
    concepts += [
        Concept(value, ALL[relation].range, value) for relation, value, _ in facts if value not in ("spot", "knee")
    ]
    return KnowledgeGraph(
        {concept.id: concept for concept in concepts},
        tuple(Fact("spot", relation, value, strength, False, "rook-2016") for relation, value, strength in facts),
    )


def test_every_condition_has_a_distribution_per_attribute():
    for condition in GRAPH.conditions:
        looks = appearance(GRAPH, condition.id)
        assert tuple(looks) == ATTRIBUTES
        for attribute, shares in looks.items():
            assert set(shares) <= set(VOCABULARY[attribute])
            assert sum(shares.values()) == pytest.approx(1.0)
            assert min(shares.values()) > 0.0
        assert tuple(typical(GRAPH, condition.id)) == ATTRIBUTES
        assert all(typical(GRAPH, condition.id).values())


def test_the_map_leads_from_concepts_of_the_ontology_to_words_that_can_be_drawn():
    kinds = {ALL[relation].range for relation in RELATIONS}
    assert {GRAPH.concepts[concept].kind for concept in VALUES} == kinds
    drawable = {value for values in VOCABULARY.values() for value in values}
    assert set(VALUES.values()) == drawable
    assert list(DEFAULTS) == list(VOCABULARY)
    assert all(value in VOCABULARY[attribute] for attribute, value in DEFAULTS.items())


def test_the_strongest_fact_gives_the_weight():
    graph = toy(
        ("colour", "red", "typical"),
        ("colour", "brown", "possible"),
        ("colour", "black", "rare"),  # which is not drawn
        ("morphology", "papule", "always"),
        ("morphology", "nodule", "typical"),
    )
    looks = appearance(graph, "spot")
    assert looks["colour"] == pytest.approx({"red": 0.8, "brown": 0.2})
    assert looks["morphology"] == pytest.approx({"papule": 0.6, "nodule": 0.4})


def test_two_concepts_of_one_value_count_once():
    graph = toy(("site", "hand", "possible"), ("site", "foot", "typical"), ("site", "trunk", "typical"))
    assert appearance(graph, "spot")["site"] == pytest.approx({"acral": 0.5, "trunk": 0.5})


def test_a_concept_shows_as_what_lies_above_it():
    assert appearance(toy(("site", "knee", "typical")), "spot")["site"] == {"limb": 1.0}


def test_the_unremarkable_is_possible_unless_it_is_denied():
    scale = ("secondary_morphology", "scale", "typical")
    assert appearance(toy(scale), "spot")["surface"] == pytest.approx({"scaly": 2 / 3, "smooth": 1 / 3})
    smooth = ("secondary_morphology", "smooth_surface", "never")
    assert appearance(toy(scale, smooth), "spot")["surface"] == {"scaly": 1.0}


def test_what_the_ontology_does_not_say_has_its_default():
    assert {a: list(shares) for a, shares in appearance(toy(), "spot").items()} == {a: [v] for a, v in DEFAULTS.items()}


def test_what_never_is_so_is_not_shown():
    looks = appearance(toy(("colour", "red", "typical"), ("colour", "black", "never")), "spot")
    assert looks["colour"] == {"red": 1.0}


def test_typical_values_come_most_typical_first():
    assert typical(GRAPH, "psoriasis")["surface"] == ("scaly", "smooth")
    assert typical(GRAPH, "vitiligo")["colour"] == ("white",)
    assert typical(GRAPH, "ringworm")["distribution"][0] == "annular"
    assert "variegated" in typical(GRAPH, "melanoma")["colour"]


def test_an_unknown_condition_is_refused():
    with pytest.raises(KnowledgeError, match="no condition 'dragon pox'"):
        appearance(GRAPH, "dragon pox")
