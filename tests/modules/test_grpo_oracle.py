"""GRPO's whole step against an oracle that shares nothing with it: gradients, advantages, old log-probs."""

from __future__ import annotations

import pytest

from support.grpo_reference import Recipe, off, recorded

ADVANTAGES = {
    "anchored": ["OutcomeAnchored"],
    "grouped": ["GroupRelative", "scale_by_std=true"],
    "centred": ["GroupRelative"],
    "others": ["LeaveOneOut"],
}
WEIGHTS = {"constant": "constant_length", "sequence": "per_sequence", "token": "per_token"}
SURROGATES = {"tokens": "clipped_tokens", "sequences": "clipped_sequences", "weights": "clipped_weights"}
TWICE = ["inner_epochs=2"]
STOPS = ["sampling.stop=[e,a]"]


def options(recipe: Recipe, given: list[str]) -> list[str]:
    """Of the command line."""
    estimator, *of_estimator = ADVANTAGES[recipe.advantage]
    found = [
        f"advantage=dermiq.objectives.advantages.{estimator}",
        *(f"advantage.{option}" for option in of_estimator),
        f"token_weights=dermiq.objectives.losses.{WEIGHTS[recipe.weights]}",
        f"surrogate=dermiq.objectives.losses.{SURROGATES[recipe.surrogate]}",
        f"clip_low={recipe.clip[0]}",
        f"clip_high={recipe.clip[1]}",
        f"kl_coef={recipe.kl}",
        f"entropy_coef={recipe.entropy}",
        f"sampling.max_new_tokens={recipe.longest}",
        f"sampling.temperature={recipe.temperature}",
        "max_grad_norm=null",
        "tokens_per_pass=null",
        "optimizer.lr=0.02",
        "rewards.terms.diagnosis.fn=support.parts.coin",
        *given,
    ]
    return [f"--model.{option}" for option in found]


CASES = {
    "grpo++": ("qwen2_5_vl", Recipe(), [], 3),
    "in parts": ("idefics3", Recipe(), ["tokens_per_pass=10"], 3),
    "per sequence": ("gemma3", Recipe("grouped", "sequence", clip=(0.2, 0.2), temperature=1.0), [], 3),
    "accumulated": ("qwen3_vl", Recipe("grouped", "sequence", temperature=1.5), ["accumulate_batches=2"], 2),
    "dapo, two epochs": ("qwen2_5_vl", Recipe("grouped", "token", kl=0.0, entropy=0.0), TWICE, 4),
    "gspo, two epochs": (
        "llava",
        Recipe("grouped", "sequence", "sequences", clip=(0.5, 0.5), kl=0.0, entropy=0.0),
        [*TWICE, "optimizer.lr=0.001"],
        4,
    ),
    "cispo, two epochs": (
        "idefics3",
        Recipe("others", "token", "weights", clip=(1.0, 0.2), kl=0.05, entropy=0.0),
        TWICE,
        4,
    ),
    "dr. grpo, stops": ("qwen2_5_vl", Recipe("centred"), [*STOPS, "group_size=4"], 3),
    "short last window": ("idefics3", Recipe("grouped", "sequence"), ["accumulate_batches=6", *STOPS], 2),
    "tokens of a window": ("idefics3", Recipe("centred", "token"), ["accumulate_batches=3", *STOPS], 3),
}
FAST = ("in parts", "tokens of a window", "cispo, two epochs")


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in CASES])
def test_a_step_is_the_oracle_s(name, lab, tmp_path, monkeypatch):
    family, recipe, given, steps = CASES[name]
    ends = [*options(recipe, given), f"--trainer.max_steps={steps}"]
    module, record = recorded(lambda: lab.run("fit", "GRPOModule", tmp_path, *ends, family=family), monkeypatch)
    found = off(module, recipe, record)
    assert len(found) == steps
    correct = [batch[1]["scores"].correct for batch in record.batches]
    assert any(each.any() and not each.all() for each in correct), "no advantage says anything"
    for gradients, advantages, logprobs in found:
        assert gradients < 1e-5 and advantages < 1e-6 and logprobs < 1e-4
