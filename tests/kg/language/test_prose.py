"""Free prose: what a text in anybody's style claims, and the verdicts on it; and how far a negation reaches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from dermiq.kg import KGScorer
from dermiq.kg.graph import identifier
from support.kg import judgements, said

SCORER = KGScorer()
GRAPH = SCORER.graph
ENTRIES: list[dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("prose.yaml").read_text("utf-8"))
VERDICTS = ("supported", "contradicted", "unknown")
OPPOSITE = {"supported": "contradicted", "contradicted": "supported"}
FULLY_ASSERTED = 60
AGAINST = ("contraindicated", "absent_symptom", "test_not_needed", "dermoscopy_against")  # said by denying the value


def located(text: str, case: str) -> tuple[str, str]:
    """(subject, value) of a claim as the file writes it."""
    subject = case
    if text.startswith("("):
        name, text = text[1:].split(") ", 1)
        subject = GRAPH.find(name).id
    return subject, identifier(text.split(": ", 1)[1])


def short(entry: dict[str, Any]) -> str:
    return f"{entry['condition']}: {entry['text'][:50]}"


@pytest.mark.parametrize("entry", ENTRIES, ids=short)
def test_prose_is_read_as_it_is_meant(entry):
    case = GRAPH.find(entry["condition"]).id
    found = judgements(SCORER.score(entry["text"], entry["condition"]))
    wrong, listed = [], set()
    for verdict in VERDICTS:
        for text in entry[verdict]:
            key = located(text, case)
            listed.add(key)
            against = text.split(") ")[-1].split(":")[0] in AGAINST
            expected = (verdict, text not in entry.get("denied", ()) and not against)
            if found.get(key) != {expected}:
                wrong.append(f"{text}: expected {expected}, found {found.get(key)}")
    for key, verdicts in found.items():
        if key not in listed and any(verdict == "contradicted" for verdict, _ in verdicts):
            wrong.append(f"contradicted unasked: {key}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("entry", [one for one in ENTRIES if "beyond" in one], ids=short)
def test_what_is_beyond_the_reader_never_gets_the_opposite_verdict(entry):
    assert entry["why"]
    case = GRAPH.find(entry["condition"]).id
    found = judgements(SCORER.score(entry["text"], entry["condition"]))
    for verdict, texts in entry["beyond"].items():
        for text in texts:
            got = {one for one, _ in found.get(located(text, case), ())}
            assert OPPOSITE[verdict] not in got, text


@pytest.mark.parametrize("entry", [one for one in ENTRIES if not any(one[verdict] for verdict in VERDICTS)], ids=short)
def test_prose_that_asserts_nothing_is_judged_on_nothing(entry):
    score = SCORER.score(entry["text"], entry["condition"])
    assert not said(score, "supported")
    assert not said(score, "contradicted")
    assert score.score == 0


def test_enough_prose_is_asserted_in_full():
    assert sum("beyond" not in entry for entry in ENTRIES) >= FULLY_ASSERTED
    assert all(not entry.keys() - {"condition", "text", *VERDICTS, "denied", "beyond", "why"} for entry in ENTRIES)


def test_contagious_but_psoriasis_is_not():
    score = SCORER.score("Tinea corporis is contagious, but psoriasis is not", "tinea corporis")
    assert said(score, "supported") == {
        ("tinea_corporis", "contagious", "contagious", True),
        ("psoriasis", "contagious", "contagious", False),
    }
    assert not score.contradicted
    assert not score.unknown


@pytest.mark.parametrize("condition", ["melanoma", "psoriasis"])
def test_wrong_to_call_this_benign(condition):
    score = SCORER.score("It would be wrong to call this benign", condition)
    claims = [item.claim for verdict in VERDICTS for item in getattr(score, verdict)]
    assert not [one for one in claims if one.positive and one.value in ("benign", "benign_tumour")]
    assert all(not one.positive for one in claims if one.relation == "malignancy")


PSO, TIN, MEL, NEV, SCA = "psoriasis", "tinea_corporis", "melanoma", "melanocytic_nevus", "scabies"


# text, the case, and each claim as (subject, value, affirmed)
SCOPE = [
    ("Psoriasis is not contagious but causes plaques.", PSO, {(PSO, "contagious", False), (PSO, "plaque", True)}),
    ("Psoriasis is not contagious, and it is scaly.", PSO, {(PSO, "contagious", False), (PSO, "scale", True)}),
    ("Although psoriasis is not contagious, it itches.", PSO, {(PSO, "contagious", False), (PSO, "itch", True)}),
    ("Psoriasis itches, although it is not contagious.", PSO, {(PSO, "itch", True), (PSO, "contagious", False)}),
    ("Psoriasis is neither malignant nor contagious.", PSO, {(PSO, "malignant", False), (PSO, "contagious", False)}),
    ("Psoriasis is not malignant or contagious.", PSO, {(PSO, "malignant", False), (PSO, "contagious", False)}),
    ("Psoriasis is not contagious. It itches.", PSO, {(PSO, "contagious", False), (PSO, "itch", True)}),
    ("Scabies is contagious, whereas psoriasis is not.", SCA, {(SCA, "contagious", True), (PSO, "contagious", False)}),
    ("Psoriasis is not contagious, whereas scabies is.", PSO, {(PSO, "contagious", False), (SCA, "contagious", True)}),
    (
        "Melanoma is malignant; a melanocytic nevus is benign.",
        MEL,
        {(MEL, "malignant", True), (NEV, "benign", True)},
    ),
    (
        "Scabies, which is contagious, is caused by mites and not by worms.",
        SCA,
        {(SCA, "contagious", True), (SCA, "mite", True), (SCA, "worm", False)},
    ),
    ("Psoriasis (which is not contagious) itches.", PSO, {(PSO, "contagious", False), (PSO, "itch", True)}),
    ("Unlike scabies, psoriasis is not contagious.", PSO, {(PSO, "contagious", False)}),
    ("It is not true that psoriasis is contagious.", PSO, {(PSO, "contagious", False)}),
    ("Psoriasis is red rather than blue.", PSO, {(PSO, "red", True), (PSO, "blue", False)}),
    ("Psoriasis is not blue but red.", PSO, {(PSO, "blue", False), (PSO, "red", True)}),
    ("Plaques without vesicles are seen in psoriasis.", PSO, {(PSO, "plaque", True), (PSO, "vesicle", False)}),
    (
        "The elbows are involved, but the face is spared in psoriasis.",
        PSO,
        {(PSO, "elbow", True), (PSO, "face", False)},
    ),
    ("There is no doubt that psoriasis is benign.", PSO, {(PSO, "benign", True)}),
    ("It is certain that melanoma is malignant.", PSO, {(MEL, "malignant", True)}),
    ("Psoriasis is not only scaly but also itchy.", PSO, {(PSO, "scale", True), (PSO, "itch", True)}),
    ("Is psoriasis contagious? No.", PSO, {(PSO, "contagious", False)}),
    ("Is psoriasis contagious?", PSO, set()),
    ("If psoriasis were contagious, we would isolate the patient.", PSO, set()),
    ("His mother had melanoma.", PSO, set()),
]


@pytest.mark.parametrize(("text", "case", "expected"), SCOPE, ids=[text for text, *_ in SCOPE])
def test_a_negation_reaches_as_far_as_its_clause(text, case, expected):
    score = SCORER.score(text, GRAPH.label(case))
    claims = [item.claim for verdict in VERDICTS for item in getattr(score, verdict)]
    assert {(one.subject, one.value, one.positive) for one in claims} == expected


@pytest.mark.parametrize(
    ("text", "value"),
    [("Psoriasis may itch, but it is red.", "red"), ("Psoriasis is red, though it may itch.", "red")],
)
def test_a_hedge_reaches_as_far_as_its_clause(text, value):
    score = SCORER.score(text, "psoriasis")
    assert {item.claim.value: item.claim.hedged for item in score.supported} == {"itch": True, value: False}
