"""Groups of a single outcome are sampled again: which, from what, and by which seeds."""

import pytest
import torch

from dermiq.modules import GRPOModule
from dermiq.modules.rollouts import sample_groups
from dermiq.objectives.advantages import uniform_groups
from dermiq.policy.prefix import prefill
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Rollout, Sampling, sample_rollout
from dermiq.prompts import to_messages
from dermiq.rewards import RewardMixture, RewardTerm
from dermiq.schema import Sample
from support.images import picture
from support.runs import logged

GROUP = 2
REWARDS = RewardMixture({"diagnosis": RewardTerm(lambda answer, sample: float(len(answer.text) % 2))})


@pytest.fixture(scope="module")
def batch(backbone):
    """Six prompts of different lengths, so that most of them are padded."""
    samples = [
        Sample(f"s{i}", (f"{i}.png",), "melanoma", "mel", f"s{i}", question="What is this ? " * (i + 1))
        for i in range(6)
    ]
    messages = [to_messages(sample, "Look.") for sample in samples]
    images = [[picture(i, 48)] for i in range(6)]
    prompt = encode_prompts(backbone.processor, messages, images)
    return {"samples": samples, "messages": messages, "images": images, "prompt": prompt}


def sampled(backbone, batch, rounds):
    """What a step would learn from, sampled with the seed "0"."""
    module = GRPOModule(backbone, REWARDS, group_size=GROUP, sampling=Sampling(6), resample_uniform=rounds)
    with backbone.without_dropout(), torch.no_grad():
        prefix = prefill(backbone, batch["prompt"])
        return sample_groups(module._sample, batch, prefix, "0", module.resample_uniform)


def row(rollout, i):
    """The token ids of a completion that count."""
    return rollout.ids[i][rollout.mask[i]].tolist()


def test_uniform_groups_alone_are_sampled_again(backbone, batch):
    """They are what the whole batch gives under the second round's seed: prompts and seeds are their own."""
    first, scores, share = sampled(backbone, batch, 0)
    uniform = uniform_groups(scores.correct).tolist()
    assert set(uniform) == {True, False}, "the case says nothing"
    found, found_scores, again_share = sampled(backbone, batch, 1)
    assert share == 0 and again_share == pytest.approx(sum(uniform) / 6)
    whole = sample_rollout(backbone, batch, Sampling(6), GROUP, "0/redraw 1")
    for place, again in enumerate(uniform):
        source = whole if again else first
        for i in range(place * GROUP, (place + 1) * GROUP):
            assert row(found, i) == row(source, i)
            torch.testing.assert_close(found.logprobs[i].sum(), source.logprobs[i].sum())
        assert found.answers[place] == source.answers[place]
    expected = REWARDS(found.answers, found.samples)
    assert torch.equal(found_scores.total, expected.total) and torch.equal(found_scores.terms, expected.terms)
    assert torch.equal(found_scores.correct, expected.correct)


def test_more_rounds_leave_fewer_uniform_groups(backbone, batch):
    left = [int(uniform_groups(sampled(backbone, batch, rounds)[1].correct).sum()) for rounds in (0, 8)]
    assert left[0] > left[1] == 0


def test_groups_from_another_rollout():
    """Two groups of two and three tokens; the second comes from a rollout of one token, which is padded."""
    samples = tuple(Sample(name, (), "t", "t", name) for name in "ab")
    ids = torch.arange(12).view(4, 3)
    mine = Rollout(samples, ids, torch.ones(4, 3, dtype=torch.bool), -ids.float(), [["w", "x"], ["y", "z"]])
    theirs = Rollout(
        samples[1:], torch.tensor([[50], [60]]), torch.ones(2, 1, dtype=torch.bool), torch.ones(2, 1), [["u", "v"]]
    )
    merged = mine.with_groups([1], theirs)
    assert merged.ids.tolist() == [[0, 1, 2], [3, 4, 5], [50, 0, 0], [60, 0, 0]]
    assert merged.mask.sum(-1).tolist() == [3, 3, 1, 1]
    assert merged.logprobs[2:].tolist() == [[1.0, 0.0, 0.0]] * 2
    assert merged.answers == [["w", "x"], ["u", "v"]] and merged.samples == samples
    wider = theirs.with_groups([0], Rollout(samples[1:], ids[:2], mine.mask[:2], -ids[:2].float(), [["w", "x"]]))
    assert wider.ids.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_what_is_logged(lab, tmp_path):
    """The untrained policy is always wrong: every group is sampled again, and stays uniform. Two steps per rollout."""
    options = ["--model.resample_uniform=1", "--model.inner_epochs=2", "--trainer.max_steps=2"]
    surrogate = "--model.surrogate=dermiq.objectives.losses.clipped_sequences"
    lab.run("fit", "GRPOModule", tmp_path, *options, surrogate)
    (*_, line) = logged(tmp_path)
    assert float(line["train/resampled"]) == float(line["train/uniform_groups"]) == 1
    assert float(line["train/clip_fraction"]) > 0, "the second step's ratios are not 1"


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="resample_uniform is at least 0 and at most 65536; got -1"):
        GRPOModule(None, None, resample_uniform=-1)
