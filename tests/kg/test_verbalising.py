"""Sentences from facts: they read well, and the scorer reads them back as what they say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermiq.kg import Concept, Fact, KGScorer, KnowledgeGraph
from dermiq.kg.relations import RELATIONS, STRENGTHS
from dermiq.kg.verbalising import joined, named, sentence, sentences, written

SCORER = KGScorer()
GRAPH = SCORER.graph
ABOUT_CONDITIONS = [fact for fact in GRAPH.facts if GRAPH.concepts[fact.subject].kind == "condition"]
POSITIVE = [fact for fact in ABOUT_CONDITIONS if fact.positive]


def small(*concepts: tuple[str, str, str]) -> KnowledgeGraph:
    """A graph of (identifier, kind, label)."""
    return KnowledgeGraph({one: Concept(one, kind, label) for one, kind, label in concepts}, ())


SMALL = small(
    ("scabies", "condition", "scabies"),
    ("psoriasis", "condition", "psoriasis"),
    ("skin_tags", "condition", "skin tags"),
    ("common_wart", "condition", "common wart"),
    ("permethrin", "treatment", "permethrin"),
    ("stopping_the_drug", "treatment", "stopping the drug"),
    ("scalp", "site", "scalp"),
    ("elbow", "site", "elbow"),
    ("knee", "site", "knee"),
    ("armpit", "site", "armpit"),
    ("around_the_mouth", "site", "around the mouth"),
    ("benign", "malignancy", "benign"),
    ("macule", "lesion", "macule"),
    ("bulla", "lesion", "bulla"),
    ("urgent", "urgency", "urgent"),
    ("many", "dermoscopy", "multiple colours under dermoscopy"),
    ("blood_tests", "test", "blood tests"),
    ("hiv_test", "test", "hiv test"),
    ("infection", "category", "bacterial infection"),
    ("shared_objects", "transmission", "shared objects"),
)


def fact(subject: str, relation: str, value: str, strength: str = "typical", note: str = "") -> Fact:
    return Fact(subject, relation, value, strength, False, "somewhere", note)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (fact("scabies", "first_line", "permethrin"), "Scabies is typically treated first with permethrin."),
        (
            fact("scabies", "first_line", "stopping_the_drug", "possible"),
            "Scabies is sometimes treated first by stopping the drug.",
        ),
        (fact("skin_tags", "malignancy", "benign", "always"), "Skin tags are always benign."),
        (fact("common_wart", "malignancy", "benign", "always"), "A common wart is always benign."),
        (fact("skin_tags", "site", "armpit"), "Skin tags are typically found in the armpit."),
        (fact("psoriasis", "site", "around_the_mouth", "never"), "Psoriasis is never found around the mouth."),
        (
            fact("psoriasis", "differential", "common_wart", note="flat and moist."),
            "Psoriasis must typically be told apart from a common wart (flat and moist).",
        ),
        (
            fact("scabies", "contraindicated", "permethrin", "always"),
            "Scabies should never be treated with permethrin.",
        ),
        (
            fact("scabies", "contraindicated", "permethrin"),
            "Scabies should typically not be treated with permethrin.",
        ),
        (fact("scabies", "contraindicated", "permethrin", "never"), "Scabies may well be treated with permethrin."),
        (fact("scabies", "urgency", "urgent"), "Scabies typically calls for urgent care."),
        (fact("scabies", "category", "infection", "never"), "Scabies is never a bacterial infection."),
        (fact("scabies", "test", "hiv_test", "possible"), "Scabies is sometimes investigated with an HIV test."),
        (fact("scabies", "test_not_needed", "blood_tests"), "Scabies is typically managed without blood tests."),
        (
            fact("scabies", "transmission", "shared_objects", "possible"),
            "Scabies is sometimes acquired through shared objects.",
        ),
        (fact("scabies", "dermoscopy", "many"), "Scabies typically shows multiple colours under dermoscopy."),
        (fact("scabies", "morphology", "macule"), "Scabies typically appears as a macule."),
    ],
)
def test_a_fact_reads_as_plain_english(said: Fact, expected: str) -> None:
    assert sentence(SMALL, said) == expected


def test_facts_of_one_relation_and_strength_share_a_sentence() -> None:
    said = [fact("psoriasis", "site", value) for value in ("scalp", "elbow", "knee")]
    assert sentences(SMALL, said) == ["Psoriasis is typically found on the scalp, elbow and knee."]


def test_other_strengths_and_conditions_have_sentences_of_their_own() -> None:
    said = [
        fact("psoriasis", "site", "scalp"),
        fact("psoriasis", "site", "elbow", "possible", note="in children"),
        fact("psoriasis", "site", "armpit", "possible"),
        fact("scabies", "site", "scalp"),
    ]
    assert sentences(SMALL, said) == [
        "Psoriasis is typically found on the scalp.",
        "Psoriasis is sometimes found on the elbow (in children) or in the armpit.",
        "Scabies is typically found on the scalp.",
    ]


def test_articles_and_alternatives_in_a_list() -> None:
    said = [fact("psoriasis", "morphology", value) for value in ("macule", "bulla")]
    assert sentences(SMALL, said) == ["Psoriasis typically appears as a macule or a bulla."]


def test_names_are_written_as_english_writes_them() -> None:
    assert written("infection with staphylococcus aureus and hiv") == "infection with Staphylococcus aureus and HIV"
    assert written("trickle down") == "trickle down"
    assert named(Concept("x", "treatment", "oral antibiotic")) == "an oral antibiotic"
    assert named(Concept("x", "treatment", "urea cream")) == "urea cream"
    assert named(Concept("x", "surface", "auspitz sign")) == "the Auspitz sign"


@given(st.lists(st.text("abc", min_size=1), min_size=2, max_size=6))
def test_a_list_holds_each_text_once_and_one_conjunction(texts: list[str]) -> None:
    assert joined(texts).replace(" and ", ", ").split(", ") == texts
    assert joined(texts).count(" and ") == 1


def test_every_relation_and_strength_gives_one_sentence() -> None:
    for relation in RELATIONS.values():
        values = [concept.id for concept in GRAPH.concepts.values() if concept.kind == relation.range]
        for strength in STRENGTHS:
            text = sentence(GRAPH, fact(GRAPH.conditions[0].id, relation.name, values[0], strength))
            assert text.endswith(".") and text[0].isupper() and "{" not in text and "  " not in text
            assert relation.name.count("_") == 0 or relation.name not in text


def test_positive_and_never_are_told_apart() -> None:
    for held in POSITIVE:
        assert sentence(GRAPH, held) != sentence(GRAPH, replace(held, strength="never"))


def read_back(held: Fact) -> tuple[bool, bool]:
    """Whether the scorer takes a fact's sentence as supported, as contradicted."""
    score = SCORER.score(sentence(GRAPH, held), held.subject)
    return bool(score.supported), bool(score.contradicted)


def test_facts_are_read_back_as_true() -> None:
    """Without notes: not one of the graph's own facts is called wrong, and hardly one goes unrecognised."""
    read = {held: read_back(held if held.relation == "quantity" else replace(held, note="")) for held in POSITIVE}
    assert [sentence(GRAPH, held) for held, (_, contradicted) in read.items() if contradicted] == []
    for relation in {held.relation for held in POSITIVE}:
        supported = [read[held][0] for held in POSITIVE if held.relation == relation]
        assert sum(supported) / len(supported) > 0.95, relation


def test_notes_rarely_mislead_the_reader() -> None:
    """A note is prose about exceptions, such as "urgent if it grows": it may be read as a claim of its own."""
    noted = [read_back(held) for held in POSITIVE if held.note]
    assert sum(contradicted for _, contradicted in noted) / len(noted) < 0.10
    assert sum(supported for supported, _ in noted) / len(noted) > 0.95


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_joined_sentences_are_read_back_as_true(data: st.DataObject) -> None:
    condition = data.draw(st.sampled_from(GRAPH.conditions)).id
    relation = data.draw(st.sampled_from(sorted(GRAPH.facts_of(condition))))
    held = [replace(one, note="") for one in GRAPH.facts_of(condition)[relation] if one.positive]
    for text in sentences(GRAPH, held):
        score = SCORER.score(text, condition)
        assert not score.contradicted, text


def test_denials_are_read_back_as_true() -> None:
    """What is never so is denied in words that the scorer understands, or takes as unknown: not as its opposite."""
    denied = [replace(held, note="") for held in ABOUT_CONDITIONS if not held.positive]
    wrong = [sentence(GRAPH, held) for held in denied if read_back(held)[1]]
    assert len(wrong) <= 0.01 * len(denied), wrong
