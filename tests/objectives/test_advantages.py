"""Advantages against worked cases, and the promises that hold for any rewards."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dermiq.objectives.advantages import (
    DecoupledNormalisation,
    Graded,
    GroupFair,
    GroupRelative,
    LeaveOneOut,
    OutcomeAnchored,
    PositiveOnly,
    uniform_groups,
)

ESTIMATORS = (GroupRelative(), GroupRelative(scale_by_std=True), LeaveOneOut(), OutcomeAnchored(), PositiveOnly())


def graded(rewards, correct=None, confidence=None, strata=None):
    """Groups [B, G] of one reward term, right where the reward is 1 unless told otherwise."""
    return Graded(
        rewards=rewards,
        correct=rewards == 1 if correct is None else correct,
        confidence=torch.ones_like(rewards) if confidence is None else confidence,
        terms=rewards[None],
        weights=torch.ones(1),
        strata=(None,) * len(rewards) if strata is None else strata,
    )


def advantages(estimator, rewards, correct=None, confidence=None):
    """The advantages of one group, as a list."""
    correct, confidence = (None if given is None else torch.tensor([given]) for given in (correct, confidence))
    return estimator(graded(torch.tensor([rewards]), correct, confidence))[0].tolist()


def test_group_relative():
    """Rewards (1, 0, 0, 0): the mean is 1/4."""
    assert advantages(GroupRelative(), [1.0, 0.0, 0.0, 0.0]) == [0.75, -0.25, -0.25, -0.25]


def test_group_relative_scaled():
    """The unbiased variance is (0.75² + 3 * 0.25²) / 3 = 0.25, so the std is 0.5 and A = (1.5, -.5, -.5, -.5)."""
    found = advantages(GroupRelative(scale_by_std=True), [1.0, 0.0, 0.0, 0.0])
    assert found == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=1e-5)


def test_leave_one_out():
    """Rewards (1, 0, 0): the others' means are 0, 1/2, 1/2."""
    assert advantages(LeaveOneOut(), [1.0, 0.0, 0.0]) == [1.0, -0.5, -0.5]


def test_anchored_mixed_group():
    """o = (1, -1), m = 0, anchor 0.5: (.5 + .25, -.5 - .25); the wrong one times its confidence 0.4: -.3."""
    found = advantages(OutcomeAnchored(shaping=0.0), [1.0, 0.0], confidence=[0.9, 0.4])
    assert found == pytest.approx([0.75, -0.3])


def test_anchored_all_wrong():
    """(-.5, -.5) * (1, .2) * .5 = (-.25, -.05): every wrong answer is pushed down, the confident one most."""
    found = advantages(OutcomeAnchored(), [0.0, 0.0], confidence=[1.0, 0.2])
    assert found == pytest.approx([-0.25, -0.05])


def test_anchored_all_right():
    """(.5, .5) * .5 = (.25, .25), whatever the confidence."""
    assert advantages(OutcomeAnchored(), [1.0, 1.0], confidence=[1.0, 0.2]) == [0.25, 0.25]


def test_shaping_orders_answers_of_the_same_outcome():
    """Right: rewards 1.4, 1.0, mean 1.2, s = ±.2.  Wrong: rewards 0.3, 0.1, mean 0.2, s = ±.1.

    o = (1, 1, -1, -1), m = 0, anchor 0.5: ±.75, plus s: (.95, .55, -.65, -.85).
    """
    found = advantages(OutcomeAnchored(), [1.4, 1.0, 0.3, 0.1], correct=[True, True, False, False])
    assert found == pytest.approx([0.95, 0.55, -0.65, -0.85])


def test_shaping_never_flips_a_sign():
    """Right: rewards 9 and 1, s = ±4: .75 - 4 < 0 is cut to 0.  Wrong: rewards 8 and 0, s = ±4: -.75 + 4 is cut."""
    found = advantages(OutcomeAnchored(), [9.0, 1.0, 8.0, 0.0], correct=[True, True, False, False])
    assert found == pytest.approx([4.75, 0.0, 0.0, -4.75])


@pytest.mark.parametrize(("confidence", "weight"), [(0.0, 0.1), (0.05, 0.1), (0.3, 0.3), (1.0, 1.0)])
def test_confidence_has_a_floor(confidence, weight):
    found = advantages(OutcomeAnchored(confidence_floor=0.1), [1.0, 0.0], confidence=[1.0, confidence])
    assert found[1] == pytest.approx(-0.75 * weight)


def test_a_floor_of_one_switches_the_weighting_off():
    found = advantages(OutcomeAnchored(confidence_floor=1.0), [1.0, 0.0], confidence=[1.0, 0.01])
    assert found == [0.75, -0.75]


def test_a_uniform_weight_of_zero_silences_uniform_groups():
    silent = OutcomeAnchored(uniform_weight=0.0)
    assert advantages(silent, [0.0, 0.0]) == [0.0, 0.0]
    assert advantages(silent, [1.0, 0.0]) == [0.75, -0.75]


def test_confidence_gives_no_gradient():
    confidence = torch.full((1, 2), 0.5, requires_grad=True)
    found = OutcomeAnchored()(graded(torch.tensor([[1.0, 0.0]]), confidence=confidence))
    assert not found.requires_grad


def test_uniformity_is_equality():
    """0.1 + 0.2 differs from 0.3 in the last place of float32 arithmetic below: not uniform."""
    close = torch.tensor([1.0, 1.0]).nextafter(torch.tensor([1.0, 2.0]))
    rewards = torch.stack([torch.tensor([1.0, 1.0]), close])
    assert rewards[1, 0] != rewards[1, 1]
    assert uniform_groups(rewards).tolist() == [True, False]


@pytest.mark.parametrize("value", [0.1, 1 / 3, 0.7])
@pytest.mark.parametrize("estimator", ESTIMATORS[:3])
def test_a_uniform_group_gives_exact_zeros(estimator, value):
    """The mean of equal float32 numbers may differ from them, which must not become a signal."""
    assert advantages(estimator, [value] * 7) == [0.0] * 7


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("estimator", "right", "wrong"),
    [(GroupRelative(), 0, 0), (GroupRelative(scale_by_std=True), 0, 0), (LeaveOneOut(), 0, 0),
     (OutcomeAnchored(), 0.25, -0.25), (PositiveOnly(), 1, 0), (DecoupledNormalisation(), 0, 0)],
)  # fmt: skip
def test_a_group_of_one(estimator, right, wrong):
    assert advantages(estimator, [1.0]) == [right]
    assert advantages(estimator, [0.0]) == [wrong]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_groups_do_not_touch_each_other(estimator):
    rewards = torch.tensor([[1.0, 0.0, 0.5], [0.2, 0.2, 1.0]])
    both = estimator(graded(rewards, confidence=rewards))
    for i in range(2):
        alone = estimator(graded(rewards[i : i + 1], confidence=rewards[i : i + 1]))
        assert torch.equal(both[i : i + 1], alone)


@pytest.mark.parametrize(
    "options",
    [{"anchor": 1.1}, {"anchor": -0.1}, {"confidence_floor": 2.0}, {"shaping": -1.0}, {"uniform_weight": -0.5}],
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        OutcomeAnchored(**options)


def test_only_right_answers_are_imitated():
    """Right, wrong, right: 1, 0, 1, whatever else they earned."""
    assert advantages(PositiveOnly(), [0.3, 2.0, 1.0], correct=[True, False, True]) == [1.0, 0.0, 1.0]


def decoupled(terms, weights):
    """The advantages of [K, B, G] weighted terms."""
    terms, weights = torch.tensor(terms), torch.tensor(weights)
    total = terms.sum(0)
    return DecoupledNormalisation()(Graded(total, total > 0, total, terms, weights, (None,) * len(total)))


def test_terms_are_normalised_apart():
    """Weights 1 and 1/2; each term becomes +-1/sqrt(2) in its group of two.

    Where they agree A = +-1.5/sqrt(2), where they disagree +-.5/sqrt(2); the squares of all four add up to
    2 * 1.125 + 2 * .125 = 2.5, so the unbiased std is sqrt(2.5 / 3).
    """
    found = decoupled([[[1.0, 0.0], [1.0, 0.0]], [[0.5, 0.0], [0.0, 0.5]]], [1.0, 0.5])
    std = (2.5 / 3) ** 0.5
    agreed, disagreed = 1.5 / 2**0.5 / std, 0.5 / 2**0.5 / std
    torch.testing.assert_close(found, torch.tensor([[agreed, -agreed], [disagreed, -disagreed]]), atol=1e-5, rtol=1e-5)


def test_a_penalty_keeps_its_sign():
    """A term of weight -1 pays (-1, 0): the first answer loses. Each A is +-1/sqrt(2), their std is 1."""
    found = decoupled([[[-1.0, 0.0]]], [-1.0])
    torch.testing.assert_close(found, torch.tensor([[-(0.5**0.5), 0.5**0.5]]), atol=1e-5, rtol=1e-5)


def test_the_size_of_a_term_is_its_weight_alone():
    """Ten times the spread of the same rewards changes nothing."""
    small = decoupled([[[1.0, 0.0, 0.0]], [[0.0, 0.1, 0.0]]], [1.0, 0.5])
    large = decoupled([[[1.0, 0.0, 0.0]], [[0.0, 1.0, 0.0]]], [1.0, 0.5])
    torch.testing.assert_close(small, large, atol=1e-4, rtol=1e-4)


def test_uniform_terms_say_nothing():
    """0.7 in one group and 0.1 in the other cannot be told from their means in float32; both terms are left out."""
    assert decoupled([[[0.7] * 7, [0.1] * 7]], [1.0]).tolist() == [[0.0] * 7] * 2


STRATA = ("light", "light", "light", "dark")
HALF_RIGHT = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])


def fair_weights(strata, strength=1.0, rewards=HALF_RIGHT):
    """What `GroupFair` multiplies the advantages of each prompt by."""
    fair = GroupFair(OutcomeAnchored(), strength)
    given = graded(rewards, strata=strata)
    weights = fair(given) / OutcomeAnchored()(given)
    assert torch.equal(weights[:, 0], weights[:, 1])
    return weights[:, 0].tolist()


def test_rare_strata_count_more():
    """1.5 / 3 = .5 and 1.5 / 1 = 1.5; the mean is (3 * .5 + 1.5) / 4 = .75: weights 2/3 and 2."""
    assert fair_weights(STRATA) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 2.0])


def test_strata_that_do_badly_count_more():
    """Two prompts each; light right in 3 of 4, dark in 1 of 4: 1.25 / 2 and 1.75 / 2, with mean .75: 5/6 and 7/6."""
    rewards = torch.tensor([[1.0, 1.0], [1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    found = fair_weights(("light", "light", "dark", "dark"), rewards=rewards)
    assert found == pytest.approx([5 / 6, 5 / 6, 7 / 6, 7 / 6])


def test_the_root_of_the_weights_at_half_strength():
    """sqrt(.5) and sqrt(1.5), with mean (3 * .7071 + 1.2247) / 4 = .83652."""
    assert fair_weights(STRATA, 0.5) == pytest.approx([0.84530, 0.84530, 0.84530, 1.46408], abs=1e-4)


@pytest.mark.parametrize(
    ("strata", "strength", "expected"),
    [
        (STRATA, 0.0, [1.0] * 4),
        ((None,) * 4, 1.0, [1.0] * 4),
        (("light",) * 4, 1.0, [1.0] * 4),
        (("light", None, None, None), 1.0, [1.0] * 4),
        (("light", None, "light", "dark"), 1.0, [0.75, 1.0, 0.75, 1.5]),  # 1.5 / 2 and 1.5 / 1, with mean 1
    ],
)
def test_weights_have_mean_one_and_leave_the_unknown_alone(strata, strength, expected):
    assert fair_weights(strata, strength) == pytest.approx(expected)


def test_a_negative_strength_is_refused():
    with pytest.raises(ValueError, match="strength is at least 0; got -1"):
        GroupFair(OutcomeAnchored(), -1.0)


@st.composite
def groups(draw):
    size = draw(st.integers(1, 6))
    shape = {"min_size": size, "max_size": size}
    reward = st.floats(-1e3, 1e3, width=32)
    rewards = torch.tensor([draw(st.lists(reward, **shape))])
    correct = torch.tensor([draw(st.lists(st.booleans(), **shape))])
    confidence = torch.tensor([draw(st.lists(st.floats(0, 1, width=32), **shape))])
    return rewards, correct, confidence


@given(groups(), st.floats(0, 1), st.floats(0, 5))
def test_a_wrong_answer_never_gains_and_a_right_one_never_loses(group, anchor, shaping):
    rewards, correct, confidence = group
    found = OutcomeAnchored(anchor, shaping)(graded(rewards, correct, confidence))
    assert (found[correct] >= 0).all() and (found[~correct] <= 0).all()


@given(groups())
def test_more_confidence_never_makes_a_mistake_cheaper(group):
    rewards, correct, confidence = group
    unsure = OutcomeAnchored()(graded(rewards, correct, confidence / 2))
    sure = OutcomeAnchored()(graded(rewards, correct, confidence))
    assert (sure[~correct] <= unsure[~correct]).all() and torch.equal(sure[correct], unsure[correct])


@given(groups())
def test_centred_advantages_sum_to_nothing(group):
    rewards, correct, confidence = group
    for estimator in (GroupRelative(), LeaveOneOut()):
        assert abs(float(estimator(graded(rewards, correct, confidence)).sum())) <= 1e-5 * (
            1 + float(rewards.abs().sum())
        )
