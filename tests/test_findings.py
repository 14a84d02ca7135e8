"""Findings: a vocabulary without ambiguity, read back from text."""

import itertools
import re
import time

import pytest

from dermiq.findings import ATTRIBUTE_OF, ATTRIBUTES, VOCABULARY, read_findings, stated_truly
from dermiq.prompts import describe


def test_a_value_belongs_to_one_attribute_and_contains_no_other():
    values = [value for attribute in ATTRIBUTES for value in VOCABULARY[attribute]]
    assert len(values) == len(set(values)) == len(ATTRIBUTE_OF)
    words = [set(re.split(r"\W+", value)) for value in values]
    assert all(not first & second for first, second in itertools.combinations(words, 2))


def test_described_findings_read_back_exactly():
    for i in range(max(len(values) for values in VOCABULARY.values())):
        findings = {attribute: (values[i % len(values)],) for attribute, values in VOCABULARY.items()}
        assert read_findings(describe(findings)) == findings


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("A brown, Irregular plaque", {"colour": ("brown",), "border": ("irregular",), "morphology": ("plaque",)}),
        ("Skin-coloured papules", {"colour": ("skin-coloured",)}),
        ("skin, coloured", {}),
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
def test_read_findings(text, findings):
    assert read_findings(text) == findings


def test_reading_is_linear_in_the_length_of_the_text():
    text = "no red " * 20_000 + "not " * 20_000
    start = time.perf_counter()
    read_findings(text)
    assert time.perf_counter() - start < 2.0


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("a red papule", (1, 2)),
        ("red or brown", (0, 1)),  # naming all values earns nothing
        ("a brown nodule on the face", (1, 2)),  # nobody knows the site
        ("nothing", (0, 0)),
    ],
)
def test_what_is_stated_truly_is_counted_by_attribute(text, counts):
    assert stated_truly(text, {"colour": ("red",), "morphology": ("nodule",)}) == counts
