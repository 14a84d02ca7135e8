"""The alignment loss: which tokens it takes, what it measures, and that its gradient is the right one."""

import pytest
import torch

from dermiq.modules import GRPOModule
from dermiq.modules.rollouts import Update
from dermiq.objectives.alignment import AlignmentTargets, SemanticAlignmentLoss, orthonormal
from dermiq.objectives.losses import constant_length
from dermiq.policy.prefix import prefill, score
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Rollout, Sampling
from dermiq.prompts import parse, to_messages
from dermiq.schema import Sample, TrainingError
from support.trl import attached, difference, gradients, load_policy, picture

TEXTS = (
    "<think> colour : brown . </think> <answer> melanoma </answer>",
    "<THINK>border: irregular\n</THINK><answer>a</answer>",
    "<think></think><answer>a</answer>",
    "colour : brown . melanoma",
)


@pytest.fixture(scope="module")
def policy(family_dir):
    return load_policy(family_dir("idefics3"))


def sample(name, **known):
    return Sample(name, (f"{name}.png",), "melanoma", "mel", name, **known)


def lengths(texts):
    """An encoder: the counts of three letters."""
    return torch.tensor([[float(text.count(letter)) + 1 for letter in "abo"] for text in texts])


@pytest.fixture(scope="module")
def rollout(policy):
    """Two prompts with two completions each, written by hand."""
    rows = policy.processor.tokenizer(list(TEXTS), add_special_tokens=False)["input_ids"]
    mask = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows])[:, None]
    ids = torch.zeros(mask.shape, dtype=torch.long).masked_scatter(
        mask, torch.tensor([token for row in rows for token in row])
    )
    samples = (sample("a", reasoning="a brown lesion"), sample("b", findings={"colour": ("black",)}))
    answers = [[parse(text) for text in TEXTS[:2]], [parse(text) for text in TEXTS[2:]]]
    return Rollout(samples, ids, mask, torch.zeros(mask.shape), answers)


def test_the_reasoning_stands_between_the_tags(policy, rollout):
    """Tags in any case; an empty reasoning has no token, nor has a completion without structure."""
    targets = SemanticAlignmentLoss(lengths).targets(policy.decode, rollout)
    assert [text.strip() for text in policy.decode(rollout.ids, targets.reasoning)] == [
        "colour : brown .", "border: irregular", "", ""
    ]  # fmt: skip
    assert torch.equal(targets.embeddings, lengths(["a brown lesion"] * 2 + ["colour : black ."] * 2))


def test_samples_without_a_reference_are_left_alone(policy, rollout):
    bare = Rollout((sample("a"), sample("b")), rollout.ids, rollout.mask, rollout.logprobs, rollout.answers)
    assert SemanticAlignmentLoss(lengths).targets(policy.decode, bare) is None
    described = SemanticAlignmentLoss(lengths, descriptions=lambda sample: "oboe" if sample.id == "a" else None)
    assert described.targets(policy.decode, bare).reasoning.any(dim=1).tolist() == [True, True, False, False]


def test_an_encoder_that_gives_no_embeddings(policy, rollout):
    with pytest.raises(TrainingError, match=r"shape \(2,\) for 2 texts"):
        SemanticAlignmentLoss(lambda texts: torch.zeros(len(texts))).targets(policy.decode, rollout)


@pytest.mark.parametrize(("rows", "columns"), [(3, 5), (5, 3), (4, 4)])
def test_the_projection_is_orthonormal(rows, columns):
    found = orthonormal(rows, columns, 0)
    product = found @ found.T if rows <= columns else found.T @ found
    assert found.shape == (rows, columns)
    torch.testing.assert_close(product, torch.eye(min(rows, columns)), atol=1e-6, rtol=0)
    assert not torch.equal(found, orthonormal(rows, columns, 1))


def test_the_distance_is_that_of_the_mean_state():
    """States (1, 0) and (0, 1) count, mean (.5, .5), target (2, 0) once projected: 1 - 1/sqrt(2).

    The second completion's state is (0, 3), of cosine 0: distance 1. The third has no reasoning. Mean of two.
    """
    projected = torch.tensor([[2.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    reasoning = torch.tensor([[True, True, False], [False, True, False], [False, False, False]])
    targets = AlignmentTargets(reasoning, projected @ orthonormal(2, 2, 0).T, seed=0)
    states = torch.tensor([[[1.0, 0], [0, 1], [9, 9]], [[9, 9], [0, 3], [9, 9]], [[1, 1], [1, 1], [1, 1]]])
    whole = targets.distance(states, torch.arange(3))
    assert whole.item() == pytest.approx((1 - 0.5**0.5 + 1) / 2, abs=1e-6)
    parts = [targets.distance(states[rows], rows) for rows in (torch.tensor([2, 0]), torch.tensor([1]))]
    torch.testing.assert_close(sum(parts), whole)


def test_states_cost_nothing_unless_asked_for(policy, rollout):
    prompt = encode_prompts(policy.processor, [to_messages(sample("a"))], [[picture(0)]])
    with policy.sampling_mode():
        prefix, rows = prefill(policy, prompt), torch.zeros(1, dtype=torch.long)
        plain = score(policy, prefix, rows, rollout.ids[:1], rollout.mask[:1])
        full = score(policy, prefix, rows, rollout.ids[:1], rollout.mask[:1], with_states=True)
    assert plain.states is None and full.states.shape == (*rollout.ids[:1].shape, prefix.last_state.shape[-1])
    assert torch.equal(full.states[:, 0], prefix.last_state)


def test_the_loss_and_its_gradient(policy, rollout):
    """In parts and through the shared prompts, the gradient is that of one plain pass; and it is the slope."""
    messages = [to_messages(sample) for sample in rollout.samples]
    prompt = encode_prompts(policy.processor, messages, [[picture(0)], [picture(1)]])
    objective = SemanticAlignmentLoss(lengths, coef=0.5)
    auxiliary = objective.prepare(policy, rollout, None)
    targets = objective.targets(policy.decode, rollout)
    weights = policy.trainable_parameters()

    def distance():
        prefix = prefill(policy, prompt)
        scores = score(policy, prefix, rollout.rows, rollout.ids, rollout.mask, with_states=True)
        return targets.distance(scores.states, torch.arange(4))

    with policy.without_dropout():
        module = attached(
            GRPOModule(
                policy, None, group_size=2, sampling=Sampling(64), kl_coef=0.0, tokens_per_pass=40,
                objectives={"alignment": objective},
            )
        )  # fmt: skip
        silent, weights_of_tokens = torch.zeros(4), constant_length(rollout.mask, 64)
        update = Update(rollout, silent, weights_of_tokens, None, {"alignment": auxiliary}, torch.tensor(1.0))
        prefix = prefill(policy, prompt).detach()
        stats, _ = module._backward(prefix, update, rollout.logprobs, True)
        found = gradients(policy)
        (0.5 * distance()).backward()
        expected = gradients(policy)
        with torch.no_grad():
            before = distance()
            slope = sum(float(gradient.square().sum()) for gradient in expected.values())
            step = 1e-3 / slope**0.5
            for weight, gradient in zip(weights, expected.values(), strict=True):
                weight.add_(gradient, alpha=step)
            after = distance()
            for weight, gradient in zip(weights, expected.values(), strict=True):
                weight.sub_(gradient, alpha=step)

    assert difference(found, expected) < 1e-5 and slope > 0
    assert stats["alignment"] == pytest.approx(before.item(), abs=1e-5)
    assert stats["loss"] == pytest.approx(0.5 * before.item(), abs=1e-5)
    assert float(after - before) == pytest.approx(2 * step * slope, rel=0.1)
