"""Attention to a shared prompt equals plain softmax attention over prompt and completion, gradients included."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from dermiq.policy.attention import SharedPrefix, attend
from dermiq.schema import ModelError

PROMPTS, GROUP, KV, REP, PAST, CHANNELS = 2, 3, 2, 2, 5, 4
LAYER = SimpleNamespace(layer_idx=0)


def tensors(tokens, own, requires_grad=True):
    torch.manual_seed(0)
    rows = PROMPTS * GROUP
    shapes = [
        (rows, KV * REP, tokens, CHANNELS), (PROMPTS, KV, PAST, CHANNELS), (PROMPTS, KV, PAST, CHANNELS),
        (rows, KV, own, CHANNELS), (rows, KV, own, CHANNELS),
    ]  # fmt: skip
    return [torch.randn(shape, dtype=torch.float64).float().requires_grad_(requires_grad) for shape in shapes]


def plain(query, past_key, past_value, key, value, visible, first, window):
    """One row and head at a time, keys and values of the prompt copied to each."""
    rows, heads, tokens, _ = query.shape
    output = torch.zeros(rows, tokens, heads, CHANNELS)
    for row in range(rows):
        keys = torch.cat([past_key[row // GROUP], key[row]], dim=1).repeat_interleave(REP, 0)
        values = torch.cat([past_value[row // GROUP], value[row]], dim=1).repeat_interleave(REP, 0)
        for i in range(tokens):
            here, seen = PAST + first + i, torch.arange(PAST + key.shape[2])
            allowed = seen <= here
            allowed[:PAST] &= visible[row // GROUP]
            if window is not None:
                allowed &= here - seen < window
            scores = (keys @ query[row, :, i, :, None])[..., 0] * CHANNELS**-0.5
            weights = scores.masked_fill(~allowed, -torch.inf).softmax(-1)
            output[row, i] = (weights[:, None] @ values)[:, 0]
    return output


VISIBLE = torch.tensor([[True] * 5, [False, False, True, True, True]])


@pytest.mark.parametrize("window", [None, 4, 100])
@pytest.mark.parametrize(("tokens", "own", "first"), [(3, 3, 0), (1, 1, 0), (1, 4, 3), (2, 5, 1)])
@pytest.mark.parametrize("padded", [False, True])
def test_output_and_gradients_are_those_of_plain_attention(padded, tokens, own, first, window):
    """The last two cases have slots that are still empty: a query is token `first + i` of `own` slots."""
    inputs = tensors(tokens, own)
    visible = VISIBLE if padded else torch.ones_like(VISIBLE)
    place = first if own == first + tokens else torch.tensor([first])
    expected = plain(*inputs, visible, first, window)
    weights = torch.randn(expected.shape)
    wanted = torch.autograd.grad((expected * weights).sum(), inputs)

    query, past_key, past_value, key, value = inputs
    shared = SharedPrefix([(past_key, past_value)], visible if padded else None, place)
    found, _ = attend(LAYER, query, key, value, None, sliding_window=window, shared_prefix=shared)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    for gradient, reference in zip(torch.autograd.grad((found * weights).sum(), inputs), wanted, strict=True):
        torch.testing.assert_close(gradient, reference, atol=1e-6, rtol=1e-5)
    with torch.no_grad():
        shared.move(place)
        decoded, _ = attend(LAYER, query, key, value, None, sliding_window=window, shared_prefix=shared)
    torch.testing.assert_close(decoded, expected, atol=1e-6, rtol=1e-5)


def test_half_precision_is_as_close_as_its_numbers_allow():
    inputs = tensors(3, 3)
    expected = plain(*inputs, VISIBLE, 0, None)
    query, past_key, past_value, key, value = (tensor.detach().bfloat16().requires_grad_() for tensor in inputs)
    shared = SharedPrefix([(past_key, past_value)], VISIBLE)
    found, _ = attend(LAYER, query, key, value, None, shared_prefix=shared)
    found.float().sum().backward()
    assert found.dtype == query.grad.dtype == past_key.grad.dtype == torch.bfloat16
    assert (found - expected).abs().max() < 0.03


@pytest.mark.parametrize("size", [1.0, 2.0])  # peaked scores suffer most
def test_half_precision_is_as_close_as_that_of_torch(size):
    """With 128 channels the scale is no power of two, and would round a query that it is applied to."""
    rows, heads, past, channels = 4, 8, 300, 128
    torch.manual_seed(0)
    made = [
        torch.randn(shape).mul(size).bfloat16() for shape in ((rows, heads, 1, channels), (1, heads, past, channels))
    ]
    query, past_key = (tensor.requires_grad_() for tensor in made)
    past_value = torch.randn(1, heads, past, channels).bfloat16()
    key, value = (torch.randn(rows, heads, 1, channels).bfloat16() for _ in range(2))

    def by_torch(dtype):
        keys, values = (
            torch.cat([first.to(dtype).expand(rows, -1, -1, -1), second.to(dtype)], dim=2)
            for first, second in ((past_key, key), (past_value, value))
        )
        return scaled_dot_product_attention(query.to(dtype), keys, values).transpose(1, 2)

    def error(output):
        found = (output.detach(), *torch.autograd.grad(output.sum(), (query, past_key)))
        return [
            float((one.double() - right).norm() / right.double().norm())
            for one, right in zip(found, exact, strict=True)
        ]

    exact = by_torch(torch.float64)
    exact = [exact.detach(), *torch.autograd.grad(exact.sum(), (query, past_key))]
    shared = SharedPrefix([(past_key, past_value)], None)
    allowed = error(by_torch(torch.bfloat16))
    for found, expected in zip(
        error(attend(LAYER, query, key, value, None, shared_prefix=shared)[0]), allowed, strict=True
    ):
        assert found < 1.1 * expected
    with torch.no_grad():
        decoded = attend(LAYER, query, key, value, None, shared_prefix=shared)[0]
    assert float((decoded - exact[0]).norm() / exact[0].norm()) < 1.4 * allowed[0]


def test_no_matrix_of_scores_is_kept_for_the_backward_pass():
    query, past_key, past_value, key, value = tensors(3, 3)
    sizes = []

    def keep(tensor):
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attend(LAYER, query, key, value, None, shared_prefix=SharedPrefix([(past_key, past_value)], None))
    rows = PROMPTS * GROUP * KV * REP * 3
    assert max(sizes) == rows * CHANNELS < rows * PAST


@pytest.mark.parametrize("option", ["softcap", "s_aux", "dropout"])
def test_scores_that_a_model_changes_are_refused(option):
    query, past_key, past_value, key, value = tensors(1, 1)
    with pytest.raises(ModelError, match=f"asks for .*{option}"):
        attend(
            LAYER, query, key, value, None, shared_prefix=SharedPrefix([(past_key, past_value)], None), **{option: 1.0}
        )
