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
