"""Preference losses against numbers worked out by hand, and what they must have in common."""

import math
from functools import partial

import pytest
import torch

from dermiq.objectives.losses import dpo_ipo, dpo_robust, dpo_sigmoid

LOSSES = (dpo_sigmoid, dpo_robust, dpo_ipo)
# Two pairs: log-ratios 2 and 1 (margin 1), -1 and 0.5 (margin -1.5).
LOGPROBS = torch.tensor([[-3.0, -6.0], [-7.0, -4.5]])
REFERENCE = torch.tensor([[-5.0, -5.0], [-8.0, -5.0]])
HALVES = torch.tensor([0.5, 0.5])


def softplus(x):
    return math.log1p(math.exp(x))


def of_margin(loss, margin, **options):
    """The loss of one pair of weight 1 whose chosen log-ratio is `margin` above the rejected one."""
    logprobs = torch.tensor([[margin], [0.0]], requires_grad=True)
    value, _ = loss(logprobs, torch.zeros(2, 1), torch.ones(1), **options)
    value.backward()
    return value.item(), logprobs.grad.flatten().tolist()


@pytest.mark.parametrize(
    ("loss", "smoothing", "expected"),
    [
        (dpo_sigmoid, 0.0, 0.5 * (softplus(-0.5) + softplus(0.75))),
        (dpo_sigmoid, 0.2, 0.5 * (0.8 * (softplus(-0.5) + softplus(0.75)) + 0.2 * (softplus(0.5) + softplus(-0.75)))),
        (dpo_robust, 0.0, 0.5 * (softplus(-0.5) + softplus(0.75))),
        (
            dpo_robust, 0.2,
            0.5 * (0.8 * (softplus(-0.5) + softplus(0.75)) - 0.2 * (softplus(0.5) + softplus(-0.75))) / 0.6,
        ),
        (dpo_ipo, 0.0, 0.5 * (0.0 + 6.25)),
        (dpo_ipo, 0.2, 0.5 * (0.8 * (0.0 + 6.25) + 0.2 * (4.0 + 0.25))),
    ],
)  # fmt: skip
def test_losses_of_two_pairs(loss, smoothing, expected):
    """beta = 0.5: beta h = 0.5 and -0.75, -log sigmoid(x) = softplus(-x), and IPO's target 1 / (2 beta) is 1."""
    value, _ = loss(LOGPROBS, REFERENCE, HALVES, beta=0.5, label_smoothing=smoothing)
    assert value.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("loss", LOSSES)
def test_statistics(loss):
    """beta = 0.5: rewards 1 and -0.5 (chosen), 0.5 and 0.25 (rejected); one of the two margins is above 0."""
    logprobs = LOGPROBS.clone().requires_grad_()
    _, stats = loss(logprobs, REFERENCE, HALVES, beta=0.5)
    assert {name: value.item() for name, value in stats.items()} == pytest.approx(
        {"chosen_reward": 0.25, "rejected_reward": 0.375, "reward_margin": -0.125, "accuracy": 0.5}
    )
    assert not any(value.requires_grad for value in stats.values())


@pytest.mark.parametrize("loss", LOSSES)
def test_pairs_are_weighted(loss):
    both = [loss(LOGPROBS[:, i : i + 1], REFERENCE[:, i : i + 1], torch.ones(1), beta=0.3)[0] for i in range(2)]
    value, _ = loss(LOGPROBS, REFERENCE, torch.tensor([0.25, 2.0]), beta=0.3)
    torch.testing.assert_close(value, 0.25 * both[0] + 2.0 * both[1])


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_only_the_difference_of_log_ratios_counts(loss, smoothing):
    """A shift of both replies, or of policy and reference alike, changes nothing; the gradients are opposite."""
    value = partial(loss, weights=HALVES, beta=0.2, label_smoothing=smoothing)
    expected = value(LOGPROBS, REFERENCE)[0]
    torch.testing.assert_close(value(LOGPROBS + 1.5, REFERENCE)[0], expected)
    shift = torch.tensor([[0.5, -2.0], [3.0, 1.0]])
    torch.testing.assert_close(value(LOGPROBS + shift, REFERENCE + shift)[0], expected)
    _, (chosen, rejected) = of_margin(loss, 0.7, beta=0.2, label_smoothing=smoothing)
    assert chosen == pytest.approx(-rejected) and chosen < 0


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_where_policy_and_reference_agree(loss):
    """d(-log sigmoid(beta h))/dh = -beta / 2 at h = 0; d(h - 1/(2 beta))^2/dh = -1 / beta."""
    _, (chosen, _) = of_margin(loss, 0.0, beta=0.1)
    assert chosen == pytest.approx(-10.0 if loss is dpo_ipo else -0.05)


def test_the_gradient_is_weighted_by_how_wrong_the_rewards_are():
    """Rafailov et al., section 4: beta * sigmoid(reward of rejected - reward of chosen)."""
    for margin in (-30.0, -1.0, 0.5, 30.0):
        _, (chosen, _) = of_margin(dpo_sigmoid, margin, beta=0.4)
        assert chosen == pytest.approx(-0.4 / (1 + math.exp(0.4 * margin)), rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "smoothing", "optimum"),
    [(dpo_sigmoid, 0.1, math.log(9) / 0.5), (dpo_ipo, 0.0, 1.0), (dpo_ipo, 0.1, 0.8)],
)
def test_optimum(loss, smoothing, optimum):
    """beta = 0.5. Conservative DPO: sigmoid(beta h) = 0.9, so h = ln 9 / beta. IPO: (1 - 2 e) / (2 beta)."""
    options = {"beta": 0.5, "label_smoothing": smoothing}
    value, (chosen, _) = of_margin(loss, optimum, **options)
    assert chosen == pytest.approx(0, abs=1e-6)
    assert value < min(of_margin(loss, optimum + step, **options)[0] for step in (-0.1, 0.1))


def test_robust_is_unbiased_under_flipped_labels():
    """Chowdhury et al.: the mean over a label that is flipped with probability e is the plain loss."""
    for margin in (-3.0, 0.2, 5.0):
        right, wrong = (of_margin(dpo_robust, sign * margin, beta=0.3, label_smoothing=0.2)[0] for sign in (1, -1))
        assert 0.8 * right + 0.2 * wrong == pytest.approx(of_margin(dpo_sigmoid, margin, beta=0.3)[0], rel=1e-5)


@pytest.mark.parametrize("loss", [dpo_sigmoid, dpo_robust])
@pytest.mark.parametrize("margin", [1e5, -1e5])
def test_far_margins_stay_finite(loss, margin):
    """Right by far: 0. Wrong by far: beta |h|, with gradient -beta."""
    value, gradient = of_margin(loss, margin, beta=0.1)
    assert value == pytest.approx(0.0 if margin > 0 else 1e4)
    assert gradient == pytest.approx([0.0, 0.0] if margin > 0 else [-0.1, 0.1])
