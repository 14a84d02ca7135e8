"""Log-probs and entropies by pieces of the vocabulary equal log_softmax over all of it, gradients included."""

import math

import pytest
import torch

from dermiq.policy.logprobs import Output, log_distribution, token_logprobs

N, H, V = 5, 6, 11


def parts(bias=True, banned=True):
    torch.manual_seed(0)
    states, weight = torch.randn(N, H, requires_grad=True), torch.randn(V, H, requires_grad=True)
    ruled_out = torch.zeros(V, dtype=torch.bool)
    ruled_out[[0, 4, 5, 6, 7]] = banned  # a whole piece of 4 and 2 among them
    output = Output(weight, torch.randn(V, requires_grad=True) if bias else None, ruled_out if banned else None)
    return states, torch.tensor([1, 2, 3, 8, 10]), output


def by_hand(states, targets, output, temperature):
    logits = states @ output.weight.t()
    logits = (logits if output.bias is None else logits + output.bias) / temperature
    if output.banned is not None:
        logits = logits.masked_fill(output.banned, -torch.inf)
    distribution = logits.log_softmax(-1)
    entropy = -(distribution.exp() * distribution.clamp(min=-1e4)).sum(-1)
    return distribution.gather(-1, targets[:, None])[:, 0], entropy


@pytest.mark.parametrize("piece", [N, 2 * N, 4 * N, 1000, 1])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("banned", [False, True])
def test_pieces_change_nothing(piece, bias, banned):
    states, targets, output = parts(bias, banned)
    leaves = [leaf for leaf in (states, output.weight, output.bias) if leaf is not None]
    weights = torch.randn(2, N)
    expected = by_hand(states, targets, output, 0.7)
    wanted = torch.autograd.grad(sum((w * e).sum() for w, e in zip(weights, expected, strict=True)), leaves)
    found = token_logprobs(states, targets, output, 0.7, piece)
    gradients = torch.autograd.grad(sum((w * f).sum() for w, f in zip(weights, found, strict=True)), leaves)
    for one, other in zip([*found, *gradients], [*expected, *wanted], strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_even_odds():
    """Zero weights: each of 8 allowed tokens has probability 1/8, and the entropy is log 8."""
    _, targets, output = parts(bias=False)
    output = output._replace(weight=torch.zeros(V, H), banned=torch.arange(V) < 3)
    logprobs, entropy = token_logprobs(torch.randn(3, H), targets[2:], output, piece=6)
    torch.testing.assert_close(logprobs, torch.full((3,), -math.log(8)))
    torch.testing.assert_close(entropy, torch.full((3,), math.log(8)))
    assert log_distribution(torch.randn(3, H), output).exp().sum(-1).tolist() == pytest.approx([1, 1, 1])


def test_no_logits_of_the_whole_vocabulary_are_kept():
    states, targets, output = parts()
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        token_logprobs(states.repeat(9, 1), targets.repeat(9), output, piece=9 * N)
    assert max(sizes) == max(9 * N * H, V * H) < 9 * N * V


def test_half_precision_weights_are_summed_in_float32():
    states, targets, output = parts()
    half = Output(output.weight.bfloat16(), output.bias, output.banned)
    expected = by_hand(states.bfloat16().float(), targets, half._replace(weight=half.weight.float()), 1.0)
    for found, wanted in zip(token_logprobs(states.bfloat16(), targets, half), expected, strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
