"""Sampling: what a rollout holds, and that nothing but seed, sample and place decides what is sampled."""

import math

import pytest
import torch

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.decoding import _pick
from dermiq.policy.lora import LoRA
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Rollout, Sampling, sample_rollout
from dermiq.prompts import to_messages
from dermiq.schema import Sample, TrainingError
from support.images import picture


@pytest.fixture(scope="module")
def backbone(family_dir):
    torch.manual_seed(0)
    made = VLMBackbone(str(family_dir("idefics3")), LoRA(rank=4))
    made.load()
    return made


def samples_of(*ids):
    return [Sample(id=name, images=("x.png",), target="melanoma", label="mel", group=name) for name in ids]


def sampled(backbone, samples, sampling, **options):
    images = [[picture(0, 48)] for _ in samples]
    prompt = encode_prompts(backbone.processor, [to_messages(sample, "Look.") for sample in samples], images)
    return sample_rollout(backbone, {"prompt": prompt, "samples": samples}, sampling, **options)


def test_what_a_rollout_holds(backbone):
    rollout = sampled(backbone, samples_of("a", "b"), Sampling(6), group_size=3)
    assert rollout.ids.shape == rollout.mask.shape == rollout.logprobs.shape == (6, rollout.ids.shape[1])
    assert rollout.rows.tolist() == [0, 0, 0, 1, 1, 1] and rollout.group_size == 3
    assert [len(group) for group in rollout.answers] == [3, 3]
    assert rollout.logprobs.dtype == torch.float32 and (rollout.logprobs <= 0).all()
    assert (rollout.logprobs[~rollout.mask] == 0).all()
    assert torch.equal(rollout.lengths.flatten(), rollout.mask.sum(-1))


def test_the_mean_probability_of_a_token_is_the_confidence():
    """exp((ln .5 + ln .125) / 2) = .25, and exp(ln .1 / 1) = .1."""
    logprobs = torch.tensor([[0.5, 0.125], [0.1, 1.0]]).log()
    mask = torch.tensor([[True, True], [True, False]])
    rollout = Rollout((samples_of("a")[0],), torch.zeros(2, 2, dtype=torch.long), mask, logprobs, [[None, None]])
    torch.testing.assert_close(rollout.confidence, torch.tensor([[0.25, 0.1]]))


def rollout_of(lengths, group_size):
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    zeros = torch.zeros(mask.shape)
    return Rollout((), zeros.long(), mask, zeros, [[None] * group_size] * (len(lengths) // group_size))


@pytest.mark.parametrize(
    ("tokens", "parts"),
    [
        (None, [[0, 1, 2, 3, 4, 5]]),
        (99, [[0, 1, 2, 3, 4, 5]]),  # 6 rows of 7
        (41, [[0, 1, 2], [3, 4, 5]]),
        (14, [[0, 2], [1], [3, 4, 5]]),  # a group divided goes by length; 3 rows of 4 fit together
        (7, [[0], [2], [1], [5], [3, 4]]),
        (1, [[0], [2], [1], [5], [3], [4]]),  # a row that is too long alone stands alone
    ],
)
def test_micro_batches_by_tokens(tokens, parts):
    """Lengths 7, 2, 5 of the first prompt and 3, 3, 4 of the second."""
    assert [part.index.tolist() for part in rollout_of([7, 2, 5, 3, 3, 4], 3).parts(tokens)] == parts


def test_a_completion_ends_with_its_first_stop_token(backbone):
    """Two steps of 480 tokens seldom stop, so all even tokens are made to."""
    stops, backbone.stop_ids = backbone.stop_ids, tuple(range(0, 480, 2))
    try:
        rollout = sampled(backbone, samples_of("a"), Sampling(8), group_size=40)
    finally:
        backbone.stop_ids = stops
    for ids, mask in zip(rollout.ids, rollout.mask, strict=True):
        kept = ids[mask].tolist()
        assert mask.tolist() == sorted(mask.tolist(), reverse=True)
        assert all(token % 2 for token in kept[:-1])
        assert kept[-1] % 2 == 0 or len(kept) == 8
    assert rollout.lengths.min() == 1 and rollout.lengths.max() > 2


def test_special_tokens_are_not_in_the_text(backbone):
    rollout = sampled(backbone, samples_of("a"), Sampling(8), group_size=20)
    assert not any("<" in answer.text and ">" in answer.text for answer in rollout.answers[0])


def test_seed_and_place_decide(backbone):
    first, again, other = (
        sampled(backbone, samples_of("a"), Sampling(8), group_size=4, seed=seed) for seed in ("0", "0", "1")
    )
    assert torch.equal(first.ids, again.ids)
    assert not torch.equal(first.ids, other.ids)
    assert len({tuple(row) for row in first.ids.tolist()}) > 1


def test_a_sample_that_stands_twice_in_a_batch_gets_other_completions(backbone):
    rollout = sampled(backbone, samples_of("a", "a"), Sampling(8), group_size=2)
    assert not torch.equal(rollout.ids[:2], rollout.ids[2:])


def test_sampling_leaves_the_global_random_state_alone(backbone):
    before = torch.get_rng_state()
    sampled(backbone, samples_of("a"), Sampling(3), group_size=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_low_temperature_is_nearly_greedy(backbone):
    greedy = sampled(backbone, samples_of("a"), Sampling(6, temperature=0.0))
    cold = sampled(backbone, samples_of("a"), Sampling(6, temperature=1e-4), group_size=3)
    assert all(torch.equal(row, greedy.ids[0]) for row in cold.ids)


def test_the_mode_returns_after_an_error(backbone):
    backbone.train()
    with pytest.raises(KeyError):
        sample_rollout(backbone, {"prompt": {"input_ids": torch.zeros(1, 1)}, "samples": samples_of("a")}, Sampling(2))
    assert backbone.training and torch.is_grad_enabled()


@pytest.mark.parametrize(
    ("uniform", "token"), [(0.0, 1), (0.24, 1), (0.26, 3), (0.9999999, 3), (0.2499, 1), (0.2501, 3)]
)
def test_inverse_transform(uniform, token):
    """Probabilities (0, 1/4, 0, 3/4, 0): tokens that may not be sampled never are, at either end."""
    logprobs = torch.tensor([[0.0, 0.25, 0.0, 0.75, 0.0]]).log()
    assert _pick(logprobs, torch.tensor([uniform])).item() == token


def test_a_banned_token_is_never_sampled_from_sums_that_decrease(monkeypatch):
    """As a GPU's float32 sums do. Here each sum at a banned token is larger than it is, and the next ones are not."""
    banned = torch.arange(40) % 2 == 0
    logprobs = torch.zeros(40).masked_fill(banned, -torch.inf).log_softmax(-1)
    cumsum = torch.Tensor.cumsum
    monkeypatch.setattr(torch.Tensor, "cumsum", lambda *given, **named: cumsum(*given, **named) + 0.03 * banned)
    uniform = torch.linspace(0, 1, 500)
    assert not banned[_pick(logprobs.expand(500, -1), uniform)].any()


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_probabilities_that_are_not_finite_stop_the_run(temperature, family_dir):
    backbone = VLMBackbone(str(family_dir("idefics3")), LoRA(rank=4))
    backbone.load()
    with torch.no_grad():
        backbone.trainable_parameters()[0].fill_(math.nan)
    with pytest.raises(TrainingError, match="not finite on the samples case-1, case-2: its weights"):
        sampled(backbone, samples_of("case-1", "case-2"), Sampling(3, temperature), group_size=2)


@pytest.mark.parametrize("options", [{"max_new_tokens": 0}, {"temperature": -0.1}])
def test_sampling_that_makes_no_sense(options):
    with pytest.raises(ValueError, match=rf"Sampling: {next(iter(options))} is at least"):
        Sampling(**options)
