"""Checklists: published weights, every boundary, wrong input, and their ties to the ontology."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dermiq.kg.checklists import ABCD, SEVEN_POINT, WEIGHTED_SEVEN_POINT, Checklist
from dermiq.kg.ontology.loading import load_graph
from dermiq.schema import KnowledgeError

LISTS = (SEVEN_POINT, ABCD, WEIGHTED_SEVEN_POINT)
LEAST = {"asymmetry": 0, "border": 0, "colours": 1, "differential structures": 1}


@pytest.mark.parametrize("checklist", LISTS, ids=lambda one: one.name)
def test_items_are_named_once_and_the_list_is_cited(checklist):
    names = [item.name for item in checklist.items]
    assert len(set(names)) == len(names)
    assert any(character.isdigit() for character in checklist.citation)


@pytest.mark.parametrize(
    ("checklist", "weights"),
    [
        (SEVEN_POINT, [2, 2, 2, 1, 1, 1, 1]),
        (WEIGHTED_SEVEN_POINT, [2, 2, 2, 1, 1, 1, 1]),
        (ABCD, [1.3, 0.1, 0.5, 0.5]),
    ],
    ids=lambda one: getattr(one, "name", ""),
)
def test_the_published_weights(checklist, weights):
    assert [item.weight for item in checklist.items] == weights


@pytest.mark.parametrize(
    ("findings", "total", "suspicious"),
    [
        ([], 0, False),
        (["atypical pigment network"], 2, False),
        (["irregular streaks", "regression structures"], 2, False),
        (["atypical pigment network", "irregular streaks"], 3, True),
        (["irregular streaks", "irregular pigmentation", "irregular dots or globules"], 3, True),
        (["blue-whitish veil", "atypical vascular pattern"], 4, True),
        ([item.name for item in SEVEN_POINT.items], 10, True),
    ],
)
def test_seven_points_of_dermoscopy_are_suspicious_from_three(findings, total, suspicious):
    result = SEVEN_POINT.score(dict.fromkeys(findings, 1))
    assert (result.total, result.verdict == "suspicious of melanoma") == (total, suspicious)


@pytest.mark.parametrize(
    ("findings", "total", "refer"),
    [
        ([], 0, False),
        (["change in size"], 2, False),
        (["oozing", "inflammation"], 2, False),
        (["change in size", "oozing"], 3, True),
        (["oozing", "inflammation", "diameter of 7 mm or more"], 3, True),
        (["irregular shape", "irregular colour"], 4, True),
        ([item.name for item in WEIGHTED_SEVEN_POINT.items], 10, True),
    ],
)
def test_the_weighted_list_refers_from_three(findings, total, refer):
    result = WEIGHTED_SEVEN_POINT.score(dict.fromkeys(findings, True))
    assert (result.total, result.verdict == "refer urgently") == (total, refer)


@pytest.mark.parametrize(
    ("asymmetry", "border", "colours", "structures", "total", "verdict"),
    [
        (0, 0, 1, 1, 1.0, "benign"),
        (1, 4, 3, 3, 4.7, "benign"),
        (1, 5, 3, 3, 4.8, "suspicious"),
        (2, 3, 3, 2, 5.4, "suspicious"),
        (2, 4, 3, 2, 5.5, "suggestive of melanoma"),
        (2, 8, 6, 5, 8.9, "suggestive of melanoma"),
    ],
)
def test_abcd_at_its_boundaries(asymmetry, border, colours, structures, total, verdict):
    values = (asymmetry, border, colours, structures)
    result = ABCD.score(dict(zip(LEAST, values, strict=True)))
    assert (result.total, result.verdict) == (total, verdict)


def test_no_total_of_abcd_meets_a_limit_exactly():
    ranges = (range(item.lowest, item.highest + 1) for item in ABCD.items)
    totals = {ABCD.score(dict(zip(LEAST, values, strict=True))).total for values in itertools.product(*ranges)}
    assert totals.isdisjoint({4.75, 5.45})
    assert (min(totals), max(totals)) == (1.0, 8.9)


@pytest.mark.parametrize("checklist", (SEVEN_POINT, WEIGHTED_SEVEN_POINT), ids=lambda one: one.name)
@given(data=st.data())
def test_one_more_finding_never_lowers_the_total(checklist, data):
    names = [item.name for item in checklist.items]
    some = data.draw(st.sets(st.sampled_from(names)))
    more = some | {data.draw(st.sampled_from(names))}
    fewer, greater = (checklist.score(dict.fromkeys(found, 1)).total for found in (some, more))
    assert fewer <= greater


@pytest.mark.parametrize(
    ("checklist", "findings", "message"),
    [
        (SEVEN_POINT, {"change in size": 1}, "no item 'change in size'. Its items: atypical pigment network"),
        (SEVEN_POINT, {"irregular streaks": 2}, "'irregular streaks' is 2; give a whole number from 0 to 1"),
        (SEVEN_POINT, {"irregular streaks": -1}, "is -1"),
        (SEVEN_POINT, {"irregular streaks": float("nan")}, "is nan"),
        (SEVEN_POINT, {"irregular streaks": "yes"}, "is 'yes'"),
        (WEIGHTED_SEVEN_POINT, {"oozing": None}, "is None"),
        (ABCD, {"asymmetry": 2}, "'colours' is missing; give a whole number from 1 to 6"),
        (ABCD, LEAST | {"asymmetry": 3}, "'asymmetry' is 3"),
        (ABCD, LEAST | {"border": 8.5}, "'border' is 8.5"),
        (ABCD, LEAST | {"border": 9}, "'border' is 9"),
        (ABCD, LEAST | {"colours": 0}, "'colours' is 0"),
        (ABCD, LEAST | {"colours": 7}, "'colours' is 7"),
        (ABCD, LEAST | {"differential structures": 6}, "'differential structures' is 6"),
    ],
)
def test_wrong_input_is_refused(checklist, findings, message):
    with pytest.raises(KnowledgeError, match=message.replace(".", r"\.")):
        checklist.score(findings)


@pytest.mark.parametrize("checklist", LISTS, ids=lambda one: one.name)
def test_the_concepts_exist_in_the_ontology(checklist: Checklist):
    concepts = load_graph().concepts
    assert [item.concept for item in checklist.items if item.concept and item.concept not in concepts] == []


def test_every_item_of_dermoscopy_is_a_concept_of_dermoscopy():
    concepts = load_graph().concepts
    assert {concepts[item.concept].kind for item in SEVEN_POINT.items} == {"dermoscopy"}


@pytest.mark.parametrize(
    ("condition", "strengths", "suspicious"),
    [("melanoma", ("always", "typical"), True), ("seborrheic keratosis", ("always", "typical", "possible"), False)],
)
def test_facts_reach_the_threshold_for_melanoma_alone(condition, strengths, suspicious):
    graph = load_graph()
    facts = graph.about(graph.find(condition).id, "dermoscopy")
    findings = SEVEN_POINT.present(fact.value for fact in facts if fact.strength in strengths)
    assert (SEVEN_POINT.score(findings).total >= 3) is suspicious


def test_what_is_not_on_the_list_is_not_present():
    assert SEVEN_POINT.present(["milia_like_cysts", "", "blue_white_veil"]) == {"blue-whitish veil": 1}
