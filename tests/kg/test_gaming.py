"""What does not answer earns little: tags that assert nothing, and encyclopaedias."""

import pytest

from dermiq.kg import KGScorer
from dermiq.kg.scorer import UNDIAGNOSED
from dermiq.prompts import parse
from dermiq.schema import Sample

SCORER = KGScorer()
SAMPLE = Sample(id="1", images=(), target="psoriasis", label="", group="1")
THINK = (
    "Psoriasis is not contagious. It is a chronic, relapsing disease. It shows plaques with thick scale and a sharply "
    "defined border. It is found on the elbow and the knee. It is benign. The plaques are red and silvery."
)


def score(tag: str) -> float:
    return SCORER(parse(f"<think>{THINK}</think><answer>{tag}</answer>"), SAMPLE)


@pytest.mark.parametrize("tag", ["psoriasis?", "a skin condition", "a certain rash", "…"])
def test_a_tag_that_asserts_nothing_is_no_diagnosis(tag):
    assert score(tag) <= UNDIAGNOSED < score("psoriasis")


def test_a_wrong_tag_costs_more_than_an_empty_one_earns():
    assert score("ringworm") < score("psoriasis") / 2


def test_true_claims_about_other_conditions_cost_where_they_are_the_most():
    own = "Psoriasis shows plaques. Psoriasis is not contagious."
    others = (
        "Melanoma is malignant. Scabies is caused by a mite. Scabies is contagious. Impetigo is contagious. "
        "Vitiligo is not contagious. Chickenpox is caused by a virus. Rosacea is found on the face."
    )
    plain, one, all_of_them = (
        SCORER.score(text, "psoriasis").score for text in (own, f"{own} Melanoma is malignant.", f"{own} {others}")
    )
    assert plain == one > all_of_them


BLIND = [
    "It is seen in young adults, middle-aged adults and older adults. It is found on the face, trunk, arms and legs. "
    "It shows papules, plaques, patches and nodules. It is chronic and relapsing. It is multiple. It is pink.",
    "It is found on the face, scalp, neck, trunk, chest, back, abdomen, arms, elbows, hands, palms, legs and feet.",
    "It can be mistaken for psoriasis, atopic dermatitis, tinea corporis, melanoma, rosacea, urticaria and scabies.",
    "It is not caused by a mite. It is not caused by a fungus. It is not caused by bacteria. It is no emergency.",
    "It is benign. It is not contagious. It is chronic. It calls for a routine appointment.",
]
MOST = 0.35


@pytest.mark.parametrize("question", [None, "diagnosis", "appearance", "contagion", "treatment", "course"])
@pytest.mark.parametrize("text", [*BLIND, " ".join(BLIND)])
def test_what_is_written_without_a_look_at_the_case_earns_little(text, question):
    scores = [SCORER.score(text, condition.id, question).score for condition in SCORER.graph.conditions]
    assert sum(scores) / len(scores) <= MOST


def test_a_search_for_such_a_text_finds_none():
    """Greedy, over the sentences above: the best text of any length."""
    conditions = [condition.id for condition in SCORER.graph.conditions][::4]
    pool = [f"{sentence.strip()}." for text in BLIND for sentence in text.split(".") if sentence]
    text, best = "", 0.0
    while pool:
        means = {
            one: sum(SCORER.score(f"{text} {one}", condition).score for condition in conditions) / len(conditions)
            for one in pool
        }
        one = max(means, key=means.__getitem__)
        if means[one] <= best:
            break
        best, text = means[one], f"{text} {one}"
        pool.remove(one)
    assert text
    assert best <= MOST


@pytest.mark.parametrize(
    ("one", "both", "condition"),
    [
        ("It is symmetrical.", "It is symmetrical. It is unilateral.", "psoriasis"),
        ("It is chronic.", "It is chronic. It is acute.", "psoriasis"),
    ],
)
def test_both_of_a_pair_earn_less_than_the_right_one(one, both, condition):
    less, more = SCORER.score(both, condition), SCORER.score(one, condition)
    assert less.precision < more.precision
    assert less.score < more.score


@pytest.mark.parametrize(
    "text",
    [
        "Psoriasis is contagious, isn't it?",
        "Psoriasis is contagious, right?",
        "If you ask me, psoriasis is contagious.",
        "Whether you like it or not, psoriasis is contagious.",
        "As previously shown, psoriasis is contagious.",
        "psoriasis ís cöntàgíöús.",
        "psoriasis i s  c o n t a g i o u s.",
        "| psoriasis | contagious |",
        "No one should think that psoriasis is non-contagious.",
    ],
)
def test_a_wrong_claim_is_heard_in_whatever_dress(text):
    assert SCORER.score(text, "psoriasis").contradicted


@pytest.mark.parametrize(
    "text", ["Is psoriasis contagious, or is it not?", "Is it contagious?", "Psoriasis: contagious, benign?"]
)
def test_a_question_still_asserts_nothing(text):
    assert not SCORER.score(text, "psoriasis").claims
