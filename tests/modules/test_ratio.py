"""The old policy of GRPO: on the first step from a rollout the ratio is 1, whatever precision rounds."""

from __future__ import annotations

import pytest

import support.parts
from support.runs import logged

WATCHED = [
    "--model.surrogate=support.parts.watched",
    "--model.sampling.max_new_tokens=12",
    "--model.tokens_per_pass=30",
]
PRECISIONS = {
    "float32": [],
    "bfloat16 base": ["--model.backbone.dtype=bfloat16"],
    "bf16-mixed": ["--trainer.precision=bf16-mixed"],
    "bf16-true": ["--trainer.precision=bf16-true"],
    "4 bits": ["--model.backbone.load_in_4bit=true"],
    "checkpointed bf16-mixed": ["--trainer.precision=bf16-mixed", "--model.backbone.gradient_checkpointing=true"],
}
FAST = ("float32", "bfloat16 base")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in FAST)) for name in PRECISIONS]
)
def test_the_first_ratio_is_one(name, lab, tmp_path, monkeypatch):
    """Exactly, in every micro-batch of the first inner epoch; the second one is held to the same log-probs."""
    monkeypatch.setattr(support.parts, "RATIOS", [])
    options = [*PRECISIONS[name], "--model.inner_epochs=2", "--trainer.max_steps=4"]
    family = "qwen2_5_vl" if name == "4 bits" else "idefics3"
    lab.run("fit", "GRPOModule", tmp_path, *WATCHED, *options, family=family)
    passes = len(support.parts.RATIOS) // 4
    assert passes > 1 and len(support.parts.RATIOS) == 4 * passes
    firsts = [ratio for step in (0, 2) for ratio in support.parts.RATIOS[step * passes : (step + 1) * passes]]
    later = [ratio for step in (1, 3) for ratio in support.parts.RATIOS[step * passes : (step + 1) * passes]]
    assert all(ratio == 1 for ratio in firsts) and any(ratio != 1 for ratio in later)
    mismatch = [float(row["train/rollout_mismatch"]) for row in logged(tmp_path) if row["train/rollout_mismatch"]]
    if name == "float32":
        assert max(mismatch) < 1e-5
    elif name != "4 bits":  # whose rest is in float32
        assert min(mismatch) > 1e-4


def test_another_program_s_log_probs_are_kept(lab, tmp_path, monkeypatch):
    """The ratio corrects what lies between an engine of another kind and the update, and the curve says how much."""
    monkeypatch.setattr(support.parts, "RATIOS", [])
    lab.run("fit", "GRPOModule", tmp_path, *WATCHED, "--model.engine=support.parts.Elsewhere", "--trainer.max_steps=1")
    assert support.parts.RATIOS == pytest.approx([2.0] * len(support.parts.RATIOS), rel=1e-4)
    assert float(logged(tmp_path)[0]["train/rollout_mismatch"]) == pytest.approx(0.6931, rel=1e-3)
