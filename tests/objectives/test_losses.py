"""Each objective against numbers worked out by hand."""

import math

import pytest
import torch

from dermiq.objectives.losses import (
    clipped_sequences,
    clipped_tokens,
    clipped_weights,
    constant_length,
    kl_k3,
    per_sequence,
    per_token,
    policy_loss,
    sft_loss,
)

MASK = torch.tensor([[True, True, True, True], [True, False, False, False]])
WEIGHTINGS = (constant_length, per_sequence, per_token)
SURROGATES = (clipped_tokens, clipped_sequences, clipped_weights)


def loss_of_one_token(ratio, advantage, **options):
    """The loss of one completion of one token, weight 1, whose probability ratio is `ratio`."""
    logprob = torch.tensor([[math.log(ratio)]])
    loss, stats = policy_loss(logprob, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1), **options)
    return loss.item(), {name: value.item() for name, value in stats.items()}


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected", "clipped"),
    [
        (1.1, 2.0, -2.2, 0.0),
        (1.5, 2.0, -2.56, 1.0),
        (0.5, 2.0, -1.0, 0.0),
        (1.5, -2.0, 3.0, 0.0),
        (0.9, -2.0, 1.8, 0.0),
        (0.5, -2.0, 1.6, 1.0),
    ],
)
def test_clip(ratio, advantage, expected, clipped):
    """loss = -min(r A, clip(r, 0.8, 1.28) A), for A = 2 and A = -2.

    A = 2:  r = 1.1: -min(2.2, 2.2);  r = 1.5: -min(3, 1.28 * 2 = 2.56);  r = 0.5: -min(1, 1.6) (never clipped).
    A = -2: r = 1.5: -min(-3, -2.56) = 3 (never clipped);  r = 0.9: 1.8;  r = 0.5: -min(-1, 0.8 * -2) = 1.6.
    """
    loss, stats = loss_of_one_token(ratio, advantage, clip_low=0.2, clip_high=0.28)
    assert loss == pytest.approx(expected, rel=1e-6)
    assert stats == {"clip_fraction": clipped}


@pytest.mark.parametrize(("ratio", "advantage"), [(1.5, 2.0), (0.5, -2.0)])
def test_a_clipped_token_has_no_gradient(ratio, advantage):
    logprob = torch.tensor([[math.log(ratio)]], requires_grad=True)
    policy_loss(logprob, torch.zeros(1, 1), torch.tensor([advantage]), torch.ones(1, 1))[0].backward()
    assert logprob.grad.item() == 0


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_the_gradient_at_ratio_one_is_that_of_policy_gradient(surrogate):
    """At r = 1, d(-w min(r A, clip(r) A)) / d logp = -w A r = -w A; a sequence's weights are alike, as per_sequence."""
    generator = torch.Generator().manual_seed(0)
    logprobs = -torch.rand(2, 4, generator=generator)
    advantages, weights = torch.tensor([0.7, -1.3]), per_sequence(MASK, 4)
    policy = logprobs.clone().requires_grad_()
    policy_loss(policy, logprobs, advantages, weights, surrogate=surrogate)[0].backward()
    torch.testing.assert_close(policy.grad, -weights * advantages[:, None])


def test_a_sequence_has_one_ratio():
    """Ratios 2 and .605, and one outside of the mask: s = sqrt(2 * .605) = 1.1, A = 2, weights 1/2: loss -2.2.

    s of n tokens has the gradient s / n for each of them: -(1/2 + 1/2) * 2 * 1.1 / 2 = -1.1.
    """
    logprobs = torch.tensor([[math.log(2.0), math.log(0.605), 7.0]], requires_grad=True)
    weights = torch.tensor([[0.5, 0.5, 0.0]])
    options = {"surrogate": clipped_sequences, "clip_low": 0.2, "clip_high": 0.2}
    loss, stats = policy_loss(logprobs, torch.zeros(1, 3), torch.tensor([2.0]), weights, **options)
    loss.backward()
    assert loss.item() == pytest.approx(-2.2) and stats["clip_fraction"] == 0
    torch.testing.assert_close(logprobs.grad, torch.tensor([[-1.1, -1.1, 0.0]]))


def test_a_clipped_sequence_has_no_gradient():
    """s = 1.1 of the same tokens is above 1.05: loss -2 * 1.05, all of it clipped."""
    logprobs = torch.tensor([[math.log(2.0), math.log(0.605)]], requires_grad=True)
    options = {"surrogate": clipped_sequences, "clip_low": 0.05, "clip_high": 0.05}
    loss, stats = policy_loss(logprobs, torch.zeros(1, 2), torch.tensor([2.0]), torch.full((1, 2), 0.5), **options)
    loss.backward()
    assert loss.item() == pytest.approx(-2.1) and stats["clip_fraction"] == 1
    assert logprobs.grad.tolist() == [[0.0, 0.0]]


def test_a_clipped_weight_keeps_its_gradient():
    """Ratios 1.5, 1.1 and .3, bounds 0 and 1.28, A = -2: weights 1.28, 1.1, .3; loss 2 w sum(ratio * logp).

    The gradient of -w ratio A logp is -w ratio A = .5 * 2 * (1.28, 1.1, .3): no token is silent, one is clipped.
    """
    ratios = torch.tensor([[1.5, 1.1, 0.3]])
    logprobs = ratios.log().requires_grad_()
    options = {"surrogate": clipped_weights, "clip_low": 1.0, "clip_high": 0.28}
    loss, stats = policy_loss(logprobs, torch.zeros(1, 3), torch.tensor([-2.0]), torch.full((1, 3), 0.5), **options)
    loss.backward()
    torch.testing.assert_close(logprobs.grad, torch.tensor([[1.28, 1.1, 0.3]]))
    expected = 1.28 * math.log(1.5) + 1.1 * math.log(1.1) + 0.3 * math.log(0.3)
    assert loss.item() == pytest.approx(expected) and stats["clip_fraction"] == pytest.approx(0.5)


def test_k3():
    """With d = ref - policy = ln 2: exp(d) - d - 1 = 2 - ln 2 - 1; with d = -ln 2: 0.5 + ln 2 - 1."""
    d = torch.tensor([math.log(2), -math.log(2), 0.0])
    expected = torch.tensor([1 - math.log(2), math.log(2) - 0.5, 0.0])
    torch.testing.assert_close(kl_k3(torch.zeros(3), d), expected)


def test_k3_is_an_unbiased_estimate_of_the_divergence():
    """The mean of k3 under the policy is sum p (q/p - 1 - log(q/p)) = KL(p || q)."""
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    mean = (p * kl_k3(p.log(), q.log())).sum()
    torch.testing.assert_close(mean, (p * (p / q).log()).sum())


@pytest.mark.parametrize("difference", [1000.0, -1000.0])
def test_k3_does_not_overflow(difference):
    """Clamped to d = 10 and -10: exp(10) - 11 and exp(-10) + 9, gradients included."""
    logprobs = torch.zeros(1, requires_grad=True)
    kl = kl_k3(logprobs, torch.tensor([difference]))
    kl.sum().backward()
    assert kl.item() == pytest.approx(math.exp(10) - 11 if difference > 0 else math.exp(-10) + 9)
    assert torch.isfinite(logprobs.grad).all()


def test_kl_penalty_and_bonus_are_weighted_and_logged():
    """A = 0, weight 0.5, d = ln 2, H = 3: loss = 0.5 (0.1 (1 - ln 2) - 0.01 * 3)."""
    zero, weight = torch.zeros(1, 1), torch.full((1, 1), 0.5)
    loss, stats = policy_loss(
        zero,
        zero,
        torch.zeros(1),
        weight,
        ref_logprobs=torch.full((1, 1), math.log(2)),
        kl_coef=0.1,
        entropy=torch.full((1, 1), 3.0),
        entropy_coef=0.01,
    )
    assert loss.item() == pytest.approx(0.5 * (0.1 * (1 - math.log(2)) - 0.03))
    assert stats["kl"].item() == pytest.approx(0.5 * (1 - math.log(2)))
    assert stats["entropy"].item() == pytest.approx(1.5)


def test_the_entropy_bonus_pushes_entropy_up():
    entropy = torch.ones(1, 1, requires_grad=True)
    zero = torch.zeros(1, 1)
    policy_loss(zero, zero, torch.zeros(1), torch.ones(1, 1), entropy=entropy, entropy_coef=0.3)[0].backward()
    assert entropy.grad.item() == pytest.approx(-0.3)


@pytest.mark.parametrize(
    ("weighting", "first", "second"),
    [(constant_length, 1 / 20, 1 / 20), (per_sequence, 1 / 8, 1 / 2), (per_token, 1 / 5, 1 / 5)],
)
def test_token_weights(weighting, first, second):
    """N = 2 completions of 4 and 1 tokens, 10 new tokens at most.

    constant_length: 1 / (2 * 10).  per_sequence: 1 / (2 * 4) and 1 / (2 * 1).  per_token: 1 / (4 + 1).
    """
    expected = torch.tensor([[first] * 4, [second, 0, 0, 0]])
    torch.testing.assert_close(weighting(MASK, 10), expected)


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_an_empty_completion_counts_nothing(weighting):
    weights = weighting(torch.zeros(1, 3, dtype=torch.bool), 10)
    assert torch.equal(weights, torch.zeros(1, 3))


@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_the_loss_of_parts_adds_up(weighting, surrogate):
    """The weights are made of the whole batch, so any cut into micro-batches gives the same sum and statistics."""
    generator = torch.Generator().manual_seed(1)
    logprobs, old, reference, entropy = (-torch.rand(5, 4, generator=generator) for _ in range(4))
    advantages = torch.randn(5, generator=generator)
    weights = weighting(torch.rand(5, 4, generator=generator) < 0.7, 4)

    def loss(rows):
        return policy_loss(
            logprobs[rows],
            old[rows],
            advantages[rows],
            weights[rows],
            surrogate=surrogate,
            ref_logprobs=reference[rows],
            kl_coef=0.1,
            entropy=entropy[rows],
            entropy_coef=0.1,
        )

    whole, stats = loss(slice(None))
    parts = [loss(slice(0, 2)), loss(slice(2, 5))]
    torch.testing.assert_close(sum(part for part, _ in parts), whole)
    for name, value in stats.items():
        torch.testing.assert_close(sum(part[name] for _, part in parts), value)


@pytest.mark.parametrize("surrogate", SURROGATES)
def test_masked_tokens_change_nothing(surrogate):
    generator = torch.Generator().manual_seed(2)
    logprobs, old = (-torch.rand(2, 4, generator=generator) for _ in range(2))
    weights, advantages = per_token(MASK, 4), torch.tensor([1.0, -1.0])
    before, _ = policy_loss(logprobs, old, advantages, weights, surrogate=surrogate)
    changed = logprobs.masked_fill(~MASK, -3.0)
    after, _ = policy_loss(changed, old, advantages, weights, surrogate=surrogate)
    assert before == after


def test_sft():
    """Tokens that count: -ln p = 1, 2, 3, 4 and 10; mean 20 / 5 = 4; perplexity e^4."""
    logprobs = -torch.tensor([[1.0, 2.0, 3.0, 4.0], [10.0, 99.0, 99.0, 99.0]])
    loss, stats = sft_loss(logprobs, MASK)
    assert loss.item() == pytest.approx(4.0)
    assert stats["perplexity"].item() == pytest.approx(math.exp(4))
