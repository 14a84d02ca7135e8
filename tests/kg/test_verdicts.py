"""The judge, branch by branch, by hand on the small graph of `kg_lab`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dermiq.kg import Fact, KGScorer, KnowledgeGraph
from dermiq.kg.verdicts import Judge
from support.kg import DIAGNOSIS, TREATMENT, WORK, claim, small_graph

GRAPH = small_graph()
JUDGE = Judge(GRAPH)
YES, NO = True, False


def judged(subject: str, relation: str, value: str, positive: bool, judge: Judge = JUDGE, case: str = "psoriasis"):
    return judge(claim(subject, relation, value, positive), case)


def decided(subject: str, relation: str, value: str, positive: bool) -> tuple[str, set[tuple[str, str]]]:
    """The judgement, and (relation, value) of its evidence."""
    verdict = judged(subject, relation, value, positive)
    return verdict.judgement, {(fact.relation, fact.value) for fact in verdict.evidence}


def graph_with(*facts: tuple[str, str, str, str, bool]) -> KnowledgeGraph:
    """The small graph with further facts: subject, relation, value, strength, closed."""
    return replace(GRAPH, facts=(*GRAPH.facts, *(Fact(*fact, citation=WORK) for fact in facts)))


@pytest.mark.parametrize(
    ("value", "positive", "case", "judgement"),
    [
        ("psoriasis", YES, "psoriasis", "supported"),
        ("melanoma", YES, "psoriasis", "contradicted"),
        ("tinea", YES, "tinea_corporis", "supported"),
        ("tinea corporis", YES, "tinea", "supported"),
        ("psoriasis", NO, "psoriasis", "contradicted"),
        ("melanoma", NO, "psoriasis", "unknown"),
        ("tinea", NO, "tinea", "contradicted"),
        ("tinea corporis", NO, "tinea", "unknown"),  # another form of it
    ],
)
def test_a_diagnosis_is_right_if_it_names_the_case_or_a_form_of_it(value, positive, case, judgement):
    verdict = judged(case, DIAGNOSIS, value, positive, case=case)
    assert (verdict.judgement, verdict.relation, verdict.evidence, verdict.strength) == (judgement, DIAGNOSIS, (), "")


@pytest.mark.parametrize(
    ("subject", "value", "positive", "judgement"),
    [
        ("tinea corporis", "tinea", YES, "supported"),
        ("tinea", "tinea corporis", YES, "supported"),
        ("psoriasis", "tinea", YES, "contradicted"),  # an inflammatory disease is no infection
        ("psoriasis", "tinea", NO, "unknown"),
        ("tinea corporis", "tinea", NO, "unknown"),
    ],
)
def test_forms_are_judged_by_the_tree_of_conditions(subject, value, positive, judgement):
    assert judged(subject, "subtype_of", value, positive).judgement == judgement


@pytest.mark.parametrize(
    ("subject", "value", "positive", "judgement"),
    [
        ("psoriasis", "tinea corporis", YES, "supported"),
        ("tinea corporis", "psoriasis", YES, "supported"),
        ("melanoma", "melanocytic nevus", YES, "supported"),
        ("psoriasis", "melanoma", YES, "unknown"),
        ("psoriasis", "melanoma", NO, "unknown"),
        ("psoriasis", "tinea corporis", NO, "contradicted"),
        ("tinea corporis", "psoriasis", NO, "contradicted"),
    ],
)
def test_a_likeness_holds_both_ways(subject, value, positive, judgement):
    assert judged(subject, "differential", value, positive).judgement == judgement


@pytest.mark.parametrize(
    ("subject", "relation", "value", "positive", "judgement"),
    [
        ("psoriasis", "malignancy", "benign", YES, "supported"),
        ("psoriasis", "malignancy", "benign", NO, "contradicted"),
        ("psoriasis", "malignancy", "malignant", YES, "contradicted"),
        ("psoriasis", "malignancy", "malignant", NO, "supported"),
        ("psoriasis", "malignancy", "pre-malignant", YES, "contradicted"),
        ("melanoma", "malignancy", "benign", YES, "contradicted"),
        ("melanoma", "malignancy", "benign", NO, "supported"),
        ("melanoma", "malignancy", "pre-malignant", YES, "contradicted"),
        ("psoriasis", "contagious", "contagious", YES, "contradicted"),
        ("psoriasis", "contagious", "contagious", NO, "supported"),
        ("scabies", "contagious", "non-contagious", YES, "contradicted"),
        ("scabies", "contagious", "contagious", YES, "supported"),
        ("melanoma", "urgency", "routine", YES, "contradicted"),
        ("melanoma", "urgency", "urgent", YES, "supported"),
        ("melanoma", "urgency", "urgent", NO, "contradicted"),
        ("melanoma", "urgency", "emergency", NO, "supported"),
    ],
)
def test_values_exclude_each_other(subject, relation, value, positive, judgement):
    verdict = judged(subject, relation, value, positive)
    assert (verdict.judgement, verdict.relation) == (judgement, relation)
    [evidence] = verdict.evidence
    assert (evidence.subject, evidence.relation) == (subject.replace(" ", "_"), relation)


@pytest.mark.parametrize("positive", [YES, NO])
@pytest.mark.parametrize(
    ("subject", "relation", "value"), [("scabies", "malignancy", "benign"), ("tinea", "urgency", "routine")]
)
def test_nothing_is_known_where_the_graph_holds_no_value(subject, relation, value, positive):
    assert decided(subject, relation, value, positive) == ("unknown", set())


@pytest.mark.parametrize("positive", [YES, NO])
def test_what_is_benign_but_may_turn_malignant_may_be_called_pre_malignant(positive):
    assert decided("melanocytic nevus", "malignancy", "pre-malignant", positive) == ("unknown", set())
    assert decided("melanocytic nevus", "malignancy", "malignant", YES)[0] == "contradicted"


def test_turning_into_something_benign_makes_nothing_pre_malignant():
    judge = Judge(graph_with(("psoriasis", "progresses_to", "tinea_corporis", "possible", False)))
    assert judged("psoriasis", "malignancy", "pre-malignant", YES, judge).judgement == "contradicted"
    judge = Judge(graph_with(("psoriasis", "progresses_to", "melanoma", "never", False)))
    assert judged("psoriasis", "malignancy", "pre-malignant", YES, judge).judgement == "contradicted"


@pytest.mark.parametrize(("positive", "judgement"), [(YES, "contradicted"), (NO, "supported")])
def test_an_explicit_negative_decides_even_where_values_exclude_each_other(positive, judgement):
    judge = Judge(graph_with(("scabies", "malignancy", "malignant", "never", False)))
    assert judged("scabies", "malignancy", "malignant", positive, judge).judgement == judgement
    assert judged("scabies", "malignancy", "benign", positive, judge).judgement == "unknown"


@pytest.mark.parametrize(
    ("subject", "relation", "value", "evidence"),
    [
        ("psoriasis", "morphology", "plaque", ("morphology", "plaque")),
        ("psoriasis", "colour", "silver", ("colour", "silver")),  # possibly so
        ("psoriasis", "morphology", "silvery scale", ("secondary_morphology", "silvery_scale")),
        ("psoriasis", "secondary_morphology", "plaque", ("morphology", "plaque")),
        (
            "psoriasis",
            "secondary_morphology",
            "scale",
            ("secondary_morphology", "silvery_scale"),
        ),  # a more general name
        ("psoriasis", "site", "arm", ("site", "elbow")),
        ("scabies", "agent", "mite", ("agent", "sarcoptes_scabiei")),
        ("scabies", "symptom", "itch", ("symptom", "night_itch")),
        ("tinea corporis", "site", "wrist", ("site", "arm")),  # what holds for the arm holds for its parts
        ("tinea corporis", TREATMENT, "terbinafine", ("first_line", "antifungal")),
        ("tinea corporis", "first_line", "terbinafine", ("first_line", "antifungal")),
        ("scabies", TREATMENT, "permethrin", ("first_line", "permethrin")),
        ("scabies", TREATMENT, "oral ivermectin", ("second_line", "oral_ivermectin")),
        ("scabies", "second_line", "oral ivermectin", ("second_line", "oral_ivermectin")),
        ("psoriasis", "cause", "stress", ("cause", "stress")),
        ("psoriasis", "cause", "alcohol", ("trigger", "alcohol")),
        ("psoriasis", "cause", "sunlight", ("risk_factor", "sunlight")),
        ("melanoma", "test", "punch biopsy", ("test", "biopsy")),
        ("psoriasis", TREATMENT, "hydrocortisone", ("first_line", "topical_corticosteroid")),
        (
            "psoriasis",
            TREATMENT,
            "corticosteroid",
            ("first_line", "topical_corticosteroid"),
        ),  # though one is contraindicated
        ("melanocytic nevus", "colour", "brown", ("colour", "dark_brown")),
    ],
)
def test_affirming_what_a_fact_bears_out(subject, relation, value, evidence):
    assert decided(subject, relation, value, YES) == ("supported", {evidence})


@pytest.mark.parametrize(
    ("subject", "relation", "value", "evidence"),
    [
        # an explicit negative, of the value or of what is above it
        ("psoriasis", "morphology", "vesicle", {("morphology", "vesicle")}),
        ("tinea corporis", "site", "scalp", {("site", "scalp")}),
        ("tinea corporis", "test", "biopsy", {("test", "biopsy")}),
        ("tinea corporis", "test", "punch biopsy", {("test", "biopsy")}),
        # a fact of the opposite relation
        ("psoriasis", TREATMENT, "oral corticosteroid", {("contraindicated", "oral_corticosteroid")}),
        ("psoriasis", "first_line", "oral corticosteroid", {("contraindicated", "oral_corticosteroid")}),
        ("psoriasis", "second_line", "oral corticosteroid", {("contraindicated", "oral_corticosteroid")}),
        ("tinea corporis", TREATMENT, "hydrocortisone", {("contraindicated", "corticosteroid")}),
        ("tinea corporis", TREATMENT, "nystatin", {("contraindicated", "nystatin")}),  # though antifungals are right
        ("psoriasis", "symptom", "fever", {("absent_symptom", "fever")}),
        ("psoriasis", "test", "blood tests", {("test_not_needed", "blood_tests")}),
        ("melanoma", "dermoscopy", "delta-wing sign", {("dermoscopy_against", "delta_wing_sign")}),
        # a closed list that it is not on
        ("scabies", "agent", "staphylococcus aureus", {("agent", "sarcoptes_scabiei")}),
        ("scabies", "first_line", "emollient", {("first_line", "permethrin")}),
        (
            "scabies",
            "transmission",
            "insect bite",
            {("transmission", "skin_contact"), ("transmission", "shared_objects")},
        ),
        ("psoriasis", "colour", "blue", {("colour", "red"), ("colour", "silver")}),
        ("psoriasis", "category", "infection", {("category", "inflammatory_disease")}),
        ("tinea corporis", "agent", "mite", {("agent", "dermatophyte")}),  # closed for what it is a form of
        # what cannot be caught is passed on in no way
        ("psoriasis", "transmission", "skin contact", {("contagious", "non_contagious")}),
        # a benign tumour is not malignant
        ("melanoma", "category", "benign tumour", {("malignancy", "malignant")}),
    ],
)
def test_affirming_what_a_fact_speaks_against(subject, relation, value, evidence):
    assert decided(subject, relation, value, YES) == ("contradicted", evidence)


@pytest.mark.parametrize(
    ("subject", "relation", "value"),
    [
        ("psoriasis", "site", "hand"),  # an open list
        ("psoriasis", "site", "wrist"),  # the elbow is not above it
        ("psoriasis", "symptom", "night itch"),  # a symptom does not carry over to what is below it
        ("psoriasis", "symptom", "numbness"),  # only possibly absent
        ("melanocytic nevus", "dermoscopy", "atypical pigment network"),
        ("psoriasis", "first_line", "excision"),
        ("tinea corporis", "transmission", "insect bite"),
        ("tinea", "transmission", "insect bite"),  # neither ways nor contagion known
        ("scabies", "category", "benign tumour"),
        ("psoriasis", "red_flag", "rapid growth"),
    ],
)
def test_affirming_what_the_graph_does_not_hold(subject, relation, value):
    assert decided(subject, relation, value, YES) == ("unknown", set())


def test_a_closed_list_does_not_contradict_what_is_akin_to_a_value_on_it():
    judge = Judge(graph_with(("melanoma", "agent", "mite", "typical", True)))
    verdict = judged("melanoma", "agent", "sarcoptes scabiei", YES, judge)
    assert (verdict.judgement, verdict.evidence) == ("unknown", ())
    assert judged("melanoma", "agent", "fungus", YES, judge).judgement == "contradicted"


def test_negatives_alone_close_no_list():
    judge = Judge(graph_with(("melanoma", "agent", "mite", "never", True)))
    assert judged("melanoma", "agent", "fungus", YES, judge).rule == "agent of no infection"
    assert judged("melanoma", "agent", "sarcoptes scabiei", YES, judge).judgement == "contradicted"


@pytest.mark.parametrize(
    ("subject", "relation", "value", "evidence"),
    [
        ("psoriasis", "morphology", "plaque", ("morphology", "plaque")),
        ("psoriasis", "secondary_morphology", "scale", ("secondary_morphology", "silvery_scale")),
        ("psoriasis", "site", "arm", ("site", "elbow")),
        ("psoriasis", "colour", "red", ("colour", "red")),
        ("scabies", "agent", "mite", ("agent", "sarcoptes_scabiei")),
        ("scabies", TREATMENT, "permethrin", ("first_line", "permethrin")),
        ("scabies", TREATMENT, "oral ivermectin", ("second_line", "oral_ivermectin")),
        ("psoriasis", "cause", "alcohol", ("trigger", "alcohol")),
        ("melanoma", "test", "biopsy", ("test", "biopsy")),
        ("tinea corporis", "agent", "dermatophyte", ("agent", "dermatophyte")),
    ],
)
def test_denying_what_is_always_or_typically_so(subject, relation, value, evidence):
    assert decided(subject, relation, value, NO) == ("contradicted", {evidence})


@pytest.mark.parametrize(
    ("subject", "relation", "value", "evidence"),
    [
        ("psoriasis", "morphology", "vesicle", {("morphology", "vesicle")}),
        ("tinea corporis", "test", "punch biopsy", {("test", "biopsy")}),
        ("psoriasis", TREATMENT, "oral corticosteroid", {("contraindicated", "oral_corticosteroid")}),
        ("tinea corporis", TREATMENT, "hydrocortisone", {("contraindicated", "corticosteroid")}),
        ("psoriasis", "symptom", "fever", {("absent_symptom", "fever")}),
        ("psoriasis", "test", "blood tests", {("test_not_needed", "blood_tests")}),
        ("melanoma", "dermoscopy", "delta-wing sign", {("dermoscopy_against", "delta_wing_sign")}),
        ("scabies", "agent", "fungus", {("agent", "sarcoptes_scabiei")}),
        ("psoriasis", "colour", "blue", {("colour", "red"), ("colour", "silver")}),
        ("psoriasis", "transmission", "skin contact", {("contagious", "non_contagious")}),
    ],
)
def test_denying_what_a_fact_speaks_against(subject, relation, value, evidence):
    assert decided(subject, relation, value, NO) == ("supported", evidence)


@pytest.mark.parametrize(
    ("subject", "relation", "value"),
    [
        ("psoriasis", "colour", "silver"),  # possibly so
        ("psoriasis", "symptom", "itch"),
        ("melanoma", "course", "metastasising"),
        ("tinea corporis", "site", "wrist"),  # the arm is typical, not every part of it
        ("tinea corporis", TREATMENT, "terbinafine"),
        ("psoriasis", "site", "hand"),  # an open list
        ("scabies", "transmission", "shared objects"),  # on the closed list, possibly so
    ],
)
def test_denying_what_the_graph_does_not_hold_firmly(subject, relation, value):
    assert decided(subject, relation, value, NO) == ("unknown", set())


def test_permission_is_no_denial():
    """A contraindication that is never so says that the treatment may be given."""
    assert judged("psoriasis", TREATMENT, "hydrocortisone", NO).judgement != "supported"


def test_a_verdict_names_relation_strength_and_work():
    verdict = judged("psoriasis", TREATMENT, "emollient", YES)
    assert (verdict.relation, verdict.strength) == ("first_line", "typical")
    assert GRAPH.cite(verdict.evidence[0]) == "A Handbook of Nothing (Nobody, 2000)"
    assert judged("psoriasis", "site", "hand", YES).strength == ""


@pytest.mark.parametrize(
    ("subject", "relation", "value", "rule"),
    [
        ("melanoma", "agent", "fungus", "agent of no infection"),
        ("psoriasis", TREATMENT, "permethrin", "drug against an agent, of no infection"),
        ("psoriasis", "course", "metastasising", "course of cancer, of what is benign"),
    ],
)
def test_medicine_is_closed_where_it_is(subject, relation, value, rule):
    affirmed, denied = (judged(subject, relation, value, positive) for positive in (YES, NO))
    assert (affirmed.judgement, affirmed.rule) == ("contradicted", rule)
    assert denied.judgement == "supported"


def test_hedging_changes_no_verdict_and_a_verdict_is_the_same_twice():
    for positive in (YES, NO):
        plain = claim("psoriasis", "malignancy", "malignant", positive)
        assert JUDGE(plain._replace(hedged=True), "psoriasis") == JUDGE(plain, "psoriasis") == JUDGE(plain, "melanoma")


def test_own_facts_come_before_those_of_what_it_is_a_form_of():
    judge = Judge(graph_with(("tinea_corporis", "agent", "mite", "always", True)))
    assert judged("tinea corporis", "agent", "mite", YES, judge).judgement == "supported"
    assert judged("tinea corporis", "agent", "dermatophyte", YES, judge).judgement == "contradicted"
    assert judged("tinea", "agent", "dermatophyte", YES, judge).judgement == "supported"


def test_denying_what_the_case_is_a_form_of_denies_the_case():
    assert judged("tinea corporis", DIAGNOSIS, "tinea", NO, case="tinea_corporis").judgement == "contradicted"


@pytest.mark.parametrize(
    ("text", "contradicted"),
    [
        ("Isotretinoin is the safest choice for acne in a woman who is trying for a baby.", True),
        ("Isotretinoin may be taken in pregnancy.", True),
        ("Isotretinoin must not be given to women who are pregnant.", False),
        ("Acne vulgaris is treated with an oral retinoid (strictly not in pregnancy).", False),
    ],
)
def test_what_harms_in_pregnancy(text, contradicted):
    score = KGScorer().score(text, "acne vulgaris")
    assert bool(score.contradicted) is contradicted
    assert score.claims
