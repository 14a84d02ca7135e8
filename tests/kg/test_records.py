"""Scores as records and as text: places in the answer, evidence, and rows that can be scored."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dermiq.kg import KGScorer
from dermiq.kg.records import MARKS, NUMBERS, as_record, as_text
from dermiq.kg.relations import REVIEW_STATUS
from support.kg import small_graph, small_scorer

GRAPH = small_graph()
ANSWER = (
    "Scabies is caused by Sarcoptes scabiei.\nIt isn't harmful; it may itch at night — often badly.\n"
    "It is not contagious! It shows blue plaques on the finger webs."
)


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> KGScorer:
    return small_scorer(tmp_path_factory.mktemp("graph"))


def record_of(scorer: KGScorer, answer: str, condition: str = "scabies") -> dict[str, Any]:
    return as_record(scorer.score(answer, condition), scorer.graph, answer)


def claims(record: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in MARKS:
        for claim in record[name]:
            yield name, claim


def text_of(scorer: KGScorer, answer: str, condition: str = "scabies") -> str:
    return "\n".join(line for line, _ in as_text(scorer.score(answer, condition), scorer.graph, answer))


def test_spans_point_at_the_words_of_the_value(scorer: KGScorer) -> None:
    record = record_of(scorer, ANSWER)
    words = {claim["value"]: ANSWER[slice(*claim["span"])] for _, claim in claims(record)}
    assert words == {
        "sarcoptes scabiei": "Sarcoptes scabiei",
        "itch": "itch",
        "contagious": "contagious",
        "blue": "blue",
        "plaque": "plaques",
        "finger web": "finger webs",
    }


def test_record_is_json_with_evidence_citation_and_review(scorer: KGScorer) -> None:
    record = record_of(scorer, ANSWER)
    assert json.loads(json.dumps(record)) == record
    supported = {claim["value"]: claim for claim in record["supported"]}
    assert supported["sarcoptes scabiei"]["evidence"] == [
        {
            "subject": "scabies",
            "relation": "agent",
            "value": "sarcoptes scabiei",
            "strength": "always",
            "closed": True,
            "note": "",
            "citation": "A Handbook of Nothing (Nobody, 2000)",
            "review": REVIEW_STATUS,
        }
    ]
    assert all(claim["evidence"] for name, claim in claims(record) if name != "unknown")
    assert not any(claim["evidence"] for claim in record["unknown"])


def test_numbers_are_those_of_the_score(scorer: KGScorer) -> None:
    score, record = scorer.score(ANSWER, "scabies"), record_of(scorer, ANSWER)
    assert 0 < record["score"] < 1
    assert {name: record[name] for name in NUMBERS} == {
        name: pytest.approx(getattr(score, name), abs=5e-5) for name in NUMBERS
    }


def test_a_record_names_the_relation_that_was_claimed_not_the_one_that_decided(scorer: KGScorer) -> None:
    (fever,) = record_of(scorer, "It causes fever.", "psoriasis")["contradicted"]
    assert (fever["relation"], fever["positive"]) == ("symptom", True)
    assert fever["evidence"][0]["relation"] == "absent_symptom"


def test_only_contradicted_claims_have_a_severity(scorer: KGScorer) -> None:
    found = list(claims(record_of(scorer, ANSWER)))
    assert {name for name, _ in found} == {"supported", "contradicted", "unknown"}
    for name, claim in found:
        assert ("severity" in claim) == (name == "contradicted")


_PIECES = st.sampled_from(
    ["Scabies", "it", "is", "isn't", "does not cause", "contagious", "burrows", "on the", "finger webs", "itch", "may",
     "İ", "ß", "🦠", "\u2028", "—", ".", ",", "\n", "\t", "?", "Yes,", "caused by", "Sarcoptes\u00a0scabiei", "no",
     "melanoma"]
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(answer=st.lists(_PIECES, max_size=25).map(" ".join))
def test_spans_lie_in_any_answer(scorer: KGScorer, answer: str) -> None:
    for _, claim in claims(record_of(scorer, answer)):
        start, end = claim["span"]
        assert 0 <= start < end <= len(answer)
        assert answer[start:end] == answer[start:end].strip()
    assert "\n\n\n" not in text_of(scorer, answer)


def test_text_says_each_claim_as_a_sentence_with_its_words_and_evidence(scorer: KGScorer) -> None:
    text = text_of(scorer, ANSWER)
    assert '  + scabies is caused by Sarcoptes scabiei  "Sarcoptes scabiei"' in text
    assert '  x scabies is not contagious  "contagious"  severity 0.30' in text
    assert "      Scabies is always contagious. [A Handbook of Nothing (Nobody, 2000)]" in text
    assert '  ? scabies is coloured blue  "blue"' in text


def test_text_shows_a_complete_list(scorer: KGScorer) -> None:
    text = " ".join(text_of(scorer, "Scabies is transmitted by insect bites.").split())
    assert "A complete list: Scabies is typically acquired through skin contact." in text


def test_text_marks_reserve(scorer: KGScorer) -> None:
    assert "  hedged" in text_of(scorer, "It may show burrows.")
    assert "  hedged" not in text_of(scorer, "It shows burrows.")


def test_text_of_an_answer_without_claims(scorer: KGScorer) -> None:
    assert text_of(scorer, "").endswith("The answer claims nothing that could be read.")


def test_control_characters_of_an_answer_do_not_reach_the_terminal(scorer: KGScorer) -> None:
    text = text_of(scorer, "It is found on the finger \x1bwebs.")
    assert "\x1b" not in text and '"finger  webs"' in text
