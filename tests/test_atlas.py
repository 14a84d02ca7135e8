"""The atlas: consistent tables, names, and findings read back from text."""

import itertools
import time

import pytest

from dermiq.atlas import ATTRIBUTES, CONDITIONS, VOCABULARY, concept_of, read_findings, typical
from dermiq.kg import load_graph
from dermiq.prompts import describe, normalise
from dermiq.schema import DataError


def test_every_condition_has_a_distribution_per_attribute() -> None:
    for name, condition in CONDITIONS.items():
        assert condition.name == name
        assert tuple(condition.findings) == ATTRIBUTES
        for values in condition.findings.values():
            assert sum(values.values()) == pytest.approx(1.0)
            assert min(values.values()) > 0.0


def test_a_value_belongs_to_one_attribute_and_contains_no_other() -> None:
    values = [value for attribute in ATTRIBUTES for value in VOCABULARY[attribute]]
    assert len(values) == len(set(values))
    words = [set(value.split()) for value in values]
    assert all(not first & second for first, second in itertools.combinations(words, 2))


def test_no_name_means_two_conditions() -> None:
    names = [normalise(name) for c in CONDITIONS.values() for name in (c.name, *c.synonyms)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("text", "concept"),
    [
        ("Melanoma", "melanoma"),
        ("a mole.", "melanocytic nevus"),
        ("Seborrheic  Keratosis", "benign keratosis"),
        ("basal-cell carcinoma", "basal cell carcinoma"),
        ("melanoma or nevus", None),
        ("", None),
    ],
)
def test_concept_of(text: str, concept: str | None) -> None:
    assert concept_of(text) == concept


def test_typical_values_come_most_typical_first() -> None:
    assert typical("psoriasis")["surface"] == ("scaly", "smooth")
    assert typical("melanoma")["colour"] == ("variegated", "black", "brown")
    for concept in CONDITIONS:
        assert tuple(typical(concept)) == ATTRIBUTES
        assert all(typical(concept).values())


def test_typical_refuses_an_unknown_concept() -> None:
    with pytest.raises(DataError, match="no condition 'acne'"):
        typical("acne")


def test_described_findings_read_back_exactly() -> None:
    longest = max(len(values) for values in VOCABULARY.values())
    for i in range(longest):
        findings = {attribute: (values[i % len(values)],) for attribute, values in VOCABULARY.items()}
        assert read_findings(describe(findings)) == findings
    for concept in CONDITIONS:
        assert read_findings(describe(typical(concept))) == {a: v[:1] for a, v in typical(concept).items()}


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("A brown, Irregular plaque", {"colour": ("brown",), "border": ("irregular",), "morphology": ("plaque",)}),
        ("no scaly surface", {}),
        ("not very red", {}),
        ("without any of the red", {"colour": ("red",)}),
        ("no crusted or scaly part", {"surface": ("scaly",)}),
        ("it is not . red", {"colour": ("red",)}),
        ("reddish brownish networks", {}),
        ("red and red and pink", {"colour": ("red", "pink")}),
        ("", {}),
    ],
)
def test_read_findings(text: str, findings: dict[str, tuple[str, ...]]) -> None:
    assert read_findings(text) == findings


def test_reading_is_linear_in_the_length_of_the_text() -> None:
    text = "no red " * 20_000 + "not " * 20_000
    start = time.perf_counter()
    read_findings(text)
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=lambda condition: condition.name)
def test_the_ontology_knows_every_name(condition) -> None:
    graph = load_graph()
    for name in (condition.name, *condition.synonyms):
        found = graph.find(name)
        assert graph.related(found.id, graph.find(condition.name).id), f"{name} is {found.label}"
