"""Ranges of facts, and numbers in prose that are compared with them."""

from math import inf

import pytest

from dermiq.kg import KGScorer
from dermiq.kg.language.quantities import numbers
from dermiq.kg.linking import words
from dermiq.kg.quantities import Range, parse_range
from dermiq.schema import KnowledgeError

SCORER = KGScorer()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7-10 days", Range(7, 10, "day")),
        ("0-24 hours", Range(0, 1, "day")),
        ("2 weeks", Range(14, 14, "day")),
        ("over 6 mm", Range(6, inf, "mm")),
        ("1-2 cm", Range(10, 20, "mm")),
        ("under 1 %", Range(0, 1, "%")),
        ("1-2 times daily", Range(1, 2, "times daily")),
    ],
)
def test_ranges(text, expected):
    assert parse_range(text) == expected


@pytest.mark.parametrize("text", ["", "days", "7 parsecs", "10-7 days", "about 7 days"])
def test_what_is_no_range(text):
    with pytest.raises(KnowledgeError, match="is no range"):
        parse_range(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("for 7 to 10 days", Range(7, 10, "day")),
        ("within 24 hours", Range(0, 1, "day")),
        ("over two weeks", Range(14, inf, "day")),
        ("ten times a day", Range(10, 10, "times daily")),
        ("twice daily", Range(2, 2, "times daily")),
        ("fewer than 1 %", Range(0, 1, "%")),
        ("1 in 1000", Range(0.1, 0.1, "%")),
        ("permethrin 0.5% cream", Range(0.5, 0.5, "%")),
    ],
)
def test_numbers_in_prose(text, expected):
    (found,) = numbers(words(text))
    assert found.range.unit == expected.unit
    assert found.range[:2] == pytest.approx(expected[:2])


def test_words_without_units_are_no_numbers():
    assert not list(numbers(words("Option 3 is one of a few in room 12.")))


@pytest.mark.parametrize(
    ("condition", "text", "expected"),
    [
        ("chickenpox", "The incubation period of chickenpox is about two weeks.", "supported"),
        ("chickenpox", "The incubation period of chickenpox is three years.", "contradicted"),
        ("urticaria", "Each wheal of urticaria fades within 24 hours.", "supported"),
        ("urticaria", "Each wheal lasts for three months.", "contradicted"),
        ("scabies", "Apply permethrin 5% cream.", "supported"),
        ("scabies", "Apply permethrin 80% cream.", "contradicted"),
        ("bullous pemphigoid", "Most patients are over 70 years old.", "supported"),
        ("bullous pemphigoid", "It usually begins at 6 months of age.", "contradicted"),
        ("infantile haemangioma", "It appears at the age of 40 years.", "contradicted"),
        ("psoriasis", "The waiting room has 14 chairs.", "neutral"),
        ("acne", "Isotretinoin can safely be taken in pregnancy.", "contradicted"),
        ("acne", "Isotretinoin must not be taken during pregnancy.", "supported"),
    ],
)
def test_numbers_and_states_are_judged(condition, text, expected):
    assert SCORER.score(text, condition).verdict == expected
