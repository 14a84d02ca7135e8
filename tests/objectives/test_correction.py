"""Wrong answers corrected: the policy's own reasoning stays, the right answer after it is learned."""

from types import SimpleNamespace

import pytest
import torch

from dermiq.modules import GRPOModule
from dermiq.modules.rollouts import Update
from dermiq.objectives.auxiliary import AuxiliaryLoss
from dermiq.objectives.correction import AnswerCorrection, corrections
from dermiq.objectives.losses import constant_length
from dermiq.policy.logprobs import token_logprobs
from dermiq.policy.prefix import prefill
from dermiq.policy.processing import encode_conversations, encode_prompts
from dermiq.policy.rollout import Rollout, Sampling
from dermiq.prompts import parse, to_messages
from dermiq.schema import Sample
from support.trl import attached, difference, gradients, picture

SAMPLES = tuple(
    Sample(f"s{i}", (f"{i}.png",), target, target, f"s{i}") for i, target in enumerate(("melanoma", "wart"))
)
THINK = "<think> colour : brown . </think>"
TEXTS = [
    [f"{THINK} <answer> melanoma </answer>", f"{THINK} <answer> psoriasis </answer>"],
    [f"{THINK} <answer> melanoma </answer>", "no structure"],
]


@pytest.fixture(scope="module")
def rollout(backbone):
    """Two prompts with two completions each, as the policy would write them."""
    end = " " + backbone.processor.tokenizer.eos_token
    rows = backbone.processor.tokenizer(
        [f" {text}{end}" for group in TEXTS for text in group], add_special_tokens=False
    )["input_ids"]
    mask = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows])[:, None]
    tokens = torch.tensor([token for row in rows for token in row])
    ids = torch.zeros(mask.shape, dtype=torch.int64).masked_scatter(mask, tokens)
    texts = backbone.decode(ids, mask)
    answers = [[parse(text) for text in texts[start : start + 2]] for start in (0, 2)]
    return Rollout(SAMPLES, ids, mask, torch.zeros(mask.shape), answers)


CORRECT = torch.tensor([[True, False], [False, False]])


def test_only_well_formed_wrong_answers_are_corrected(backbone, rollout):
    found = corrections(backbone, rollout, CORRECT)
    assert found.rows.tolist() == [0, 1]
    texts = backbone.decode(found.ids, found.mask)
    assert [parse(text).diagnosis for text in texts] == ["melanoma", "wart"]
    assert [parse(text).think for text in texts] == ["colour : brown ."] * 2


def test_the_loss_is_of_the_answer_and_not_of_the_reasoning(backbone, rollout):
    found = corrections(backbone, rollout, CORRECT)
    texts = backbone.decode(found.ids, found.loss_mask)
    assert all("answer" in text and "brown" not in text and "think" not in text for text in texts)
    ends = [int(ids[mask][-1]) for ids, mask in zip(found.ids, found.loss_mask, strict=True)]
    assert set(ends) <= set(backbone.stop_ids)
    assert bool((found.loss_mask <= found.mask).all())


def test_nothing_to_correct(backbone, rollout):
    assert corrections(backbone, rollout, torch.ones(2, 2, dtype=torch.bool)) is None


def test_parts_add_up(backbone, rollout):
    found = corrections(backbone, rollout, CORRECT)
    parts = list(found.parts(tokens=found.ids.shape[1]))
    assert len(parts) == 2 and len(list(found.parts(None))) == 1
    assert torch.equal(torch.cat([part.ids for part in parts]), found.ids)
    assert torch.equal(torch.cat([part.rows for part in parts]), found.rows)


def test_the_gradient_is_that_of_supervised_training_on_the_answer(backbone, rollout):
    """Through the shared prompt and in parts, as a whole conversation gives of which the answer alone counts."""
    images = [[picture(0)], [picture(1)]]
    messages = [to_messages(sample, "Look.") for sample in SAMPLES]
    prompt = encode_prompts(backbone.processor, messages, images)
    objectives = {"correction": AnswerCorrection(coef=2.0)}
    module = GRPOModule(backbone, None, group_size=2, sampling=Sampling(64), kl_coef=0.0, objectives=objectives)
    module.tokens_per_pass = 8
    found = corrections(backbone, rollout, CORRECT)
    auxiliary = {"correction": AuxiliaryLoss(completions=found)}
    silent, weights = torch.zeros(4), constant_length(rollout.mask, 64)
    update = Update(rollout, silent, weights, None, auxiliary, torch.tensor(1.0))
    with backbone.without_dropout():
        prefix = prefill(backbone, prompt).detach()
        stats, _ = attached(module)._backward(prefix, update, rollout.logprobs, True)
        shared = gradients(backbone)
        whole = [
            [
                *asked,
                {"role": "assistant", "content": [{"type": "text", "text": f"{THINK} <answer> {right} </answer>"}]},
            ]
            for asked, right in zip(messages, ("melanoma", "wart"), strict=True)
        ]
        inputs, spoken = encode_conversations(backbone.processor, whole, images)
        answers = torch.zeros_like(spoken)
        for row, tokens in enumerate(found.loss_mask.sum(dim=1).tolist()):
            answers[row, spoken[row].nonzero()[-tokens:, 0]] = True
        states = backbone.vlm.model(**inputs, use_cache=False).last_hidden_state[:, :-1][answers[:, 1:]]
        logprobs, _ = token_logprobs(states, inputs["input_ids"][answers], backbone.output_layer(restricted=True))
        loss = -logprobs.sum() / (4 * 64)
        (2.0 * loss).backward()
    assert stats["correction"] == pytest.approx(loss.item(), rel=1e-4)
    assert difference(shared, gradients(backbone)) < 1e-4


def test_a_weight_of_0_corrects_nothing(backbone, rollout):
    scores = SimpleNamespace(correct=CORRECT)
    assert AnswerCorrection(coef=0.0).prepare(backbone, rollout, scores) is None
    assert AnswerCorrection().prepare(backbone, rollout, scores).completions.rows.tolist() == [0, 1]


def test_a_negative_weight_is_refused():
    with pytest.raises(ValueError, match="coef is at least 0; got -1"):
        AnswerCorrection(coef=-1.0)
