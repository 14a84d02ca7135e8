"""Auxiliary objectives: one that is defined here alone trains through YAML, and its gradient is that by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from dermiq.modules import GRPOModule
from dermiq.modules.rollouts import Update
from dermiq.objectives.auxiliary import AuxiliaryLoss, SupervisedCompletions
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.prefix import TokenScores
from dermiq.policy.rollout import Rollout, Sampling
from dermiq.rewards import Scores
from dermiq.schema import Sample
from support.runs import adapter, different, logged
from support.trl import attached


class SureStart:
    """The mean -log p of the completions' first tokens; and, if asked for, a completion of one's own."""

    def __init__(self, coef: float = 1.0, further: bool = False) -> None:
        self.coef, self.further = coef, further

    def prepare(self, backbone: VLMBackbone, rollout: Rollout, scores: Scores) -> AuxiliaryLoss | None:
        """Both losses."""
        count = len(rollout.ids)
        return AuxiliaryLoss(
            on_rollout=lambda part, tokens: -tokens.logprobs[:, 0].sum() / count,
            completions=SupervisedCompletions(*FURTHER) if self.further else None,
        )


FURTHER = (
    torch.tensor([0]),
    torch.tensor([[7, 4, 9]]),
    torch.tensor([[True, True, False]]),
    torch.tensor([[False, True, False]]),
)


@pytest.mark.parametrize("tokens_per_pass", [None, 1])
def test_the_gradient_by_hand(tokens_per_pass, monkeypatch):
    """Of a policy with one weight w, by whose -w * id a token has its log-prob; the advantages are 0.

    First tokens 2, 3 and 5: the loss of the rollout is w (2 + 3 + 5) / 3. The further completion learns token 4 alone:
    4 w / (3 completions * 8 tokens). Gradient: coef 0.6 times scale 0.5 times (10 / 3 + 1 / 6) = 1.05.
    """
    weight = torch.tensor(1.0, requires_grad=True)

    def score(backbone, prefix, rows, ids, mask, temperature, with_states):
        logprobs = -weight * ids * mask
        return TokenScores(logprobs, torch.zeros_like(logprobs), None)

    monkeypatch.setattr("dermiq.modules.grpo.score", score)
    ids = torch.tensor([[2, 6], [3, 0], [5, 1]])
    samples = (Sample("a", (), "t", "t", "a"),)
    rollout = Rollout(samples, ids, torch.tensor([[1, 1], [1, 0], [1, 1]]).bool(), -ids.float(), [[None] * 3])
    objective = SureStart(coef=0.6, further=True)
    module = attached(
        GRPOModule(
            None,
            None,
            sampling=Sampling(8),
            kl_coef=0.0,
            tokens_per_pass=tokens_per_pass,
            objectives={"sure": objective},
        )
    )
    auxiliary = {"sure": objective.prepare(None, rollout, None)}
    update = Update(rollout, torch.zeros(3), torch.zeros(3, 2), None, auxiliary, scale=torch.tensor(0.5))
    stats, logprobs = module._backward(SimpleNamespace(backward_through_prompt=lambda: 0 * weight), update, None, True)
    assert weight.grad.item() == pytest.approx(1.05)
    assert stats["sure"] == pytest.approx(10 / 3 + 1 / 6) and stats["loss"] == pytest.approx(0.6 * 10 / 3)
    assert torch.equal(logprobs, -(ids * rollout.mask).float())


def test_yaml_names_it(lab, tmp_path):
    """Of a run that learns nothing else, the curve falls and the adapter moves; without it there is no curve."""
    options = ["--trainer.max_steps=2", "--model.kl_coef=0", "--model.advantage=support.parts.Silent"]
    named = f"--model.objectives={{sure: {{class_path: {__name__}.SureStart, init_args: {{coef: 2.0}}}}}}"
    lab.run("fit", "GRPOModule", tmp_path / "sure", *options, named, "--trainer.log_every_n_steps=1")
    lab.run("fit", "GRPOModule", tmp_path / "plain", *options, "--trainer.log_every_n_steps=1")
    sure, plain = logged(tmp_path / "sure"), logged(tmp_path / "plain")
    values = [float(row["train/sure"]) for row in sure]
    assert len(values) == 2 and values[0] > values[1] > 0
    assert [float(row["train/loss"]) for row in sure] == pytest.approx([2 * value for value in values])
    assert "train/sure" not in plain[0] and [float(row["train/loss"]) for row in plain] == [0, 0]
    assert different(adapter(tmp_path / "sure"), adapter(tmp_path / "plain")) != []


def test_an_objective_with_nothing_to_say_has_no_curve(lab, tmp_path):
    """An untrained policy has no well-formed answer that could be corrected."""
    named = "--model.objectives={correction: dermiq.objectives.correction.AnswerCorrection}"
    lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=1", named, "--trainer.log_every_n_steps=1")
    assert "train/correction" not in logged(tmp_path)[0] and "train/loss" in logged(tmp_path)[0]
