"""Every precision trains, and the adapter stays in float32 under each."""

import pytest
import torch

from dermiq.datamodules.collate import Item, PromptCollate
from dermiq.kg import Retriever
from dermiq.objectives.alignment import orthonormal
from modules.test_candidates import module_of, sample_of
from support.images import picture
from support.runs import STAGES, adapter, checkpoint, different, logged

WATCHED = "--trainer.callbacks=[support.parts.WatchAdapter, dermiq.trainer.checkpointing.RunCheckpoint]"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_adapter_is_trained_in_float32(stage, precision, lab, tmp_path):
    """`WatchAdapter` checks dtype and gradient at every step, and that all weights have moved at the end."""
    lab.run("fit", stage, tmp_path, f"--trainer.precision={precision}", "--trainer.max_steps=3", WATCHED)
    assert {str(value.dtype) for value in adapter(tmp_path).values()} == {"torch.float32"}


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_fully_trained_modules_keep_up(precision, lab, tmp_path):
    whole = "--model.backbone.lora.fully_trained=[connector, lm_head]"
    options = [f"--trainer.precision={precision}", "--trainer.max_steps=2", WATCHED, whole]
    lab.run("fit", "SFTModule", tmp_path, *options)
    assert any("lm_head" in key for key in adapter(tmp_path))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_bfloat16_base_trains(precision, lab, tmp_path):
    """As released weights are: the base in bfloat16, the adapter in float32."""
    base = "--model.backbone.dtype=bfloat16"
    options = [f"--trainer.precision={precision}", "--trainer.max_steps=2", WATCHED, base]
    lab.run("fit", "GRPOModule", tmp_path, *options)


@pytest.mark.parametrize("stage", STAGES)
def test_four_bits_train(stage, cpu, lab, tmp_path):
    four = "--model.backbone.load_in_4bit=true"
    lab.run("fit", stage, tmp_path, "--trainer.max_steps=2", WATCHED, four, family="qwen2_5_vl")


# A bfloat16 default dtype, which Lightning sets for the length of a step under bf16-true


def options(**given):
    return [f"--model.{name}={value}" for name, value in given.items()]


RECITED = {"engine": "support.parts.Recited", "sampling": "{max_new_tokens: 60, temperature: 0.7}"}
ALIGNMENT = (
    "{class_path: dermiq.objectives.alignment.SemanticPull, init_args: {encoder: {class_path: support.parts.Letters}, "
    "descriptions: support.parts.described, coef: 0.5}}"
)
ADVANTAGES = "dermiq.objectives.advantages"
FAIR = f"{{class_path: {ADVANTAGES}.GroupFair, init_args: {{advantage: {ADVANTAGES}.DecoupledNormalisation}}}}"
VALIDATED = ["--trainer.limit_val_batches=1", "--trainer.val_check_interval=1", *options(eval_samples=2)]
RUNS = {
    "grpo++": ("GRPOModule", [*VALIDATED, *options(
        **RECITED, alignment=ALIGNMENT, correction_coef=0.5, redraws=1, entropy_coef=0.05, kl_coef=0.1,
        reference_sync_every=1, accumulate_batches=2,
    )]),
    "gdpo, gspo": ("GRPOModule", options(
        **RECITED, advantage=FAIR, token_weights="dermiq.objectives.losses.per_sequence", inner_epochs=2, kl_coef=0.1,
        surrogate="dermiq.objectives.losses.clipped_sequences", clip_low=0.0003, clip_high=0.0004,
    )),
    "grpo, dapo": ("GRPOModule", options(
        **RECITED, advantage=f"{{class_path: {ADVANTAGES}.GroupRelative, init_args: {{scale_by_std: true}}}}",
        token_weights="dermiq.objectives.losses.per_token", redraws=2,
    )),
    "rloo, cispo": ("GRPOModule", options(
        advantage=f"{ADVANTAGES}.LeaveOneOut", surrogate="dermiq.objectives.losses.clipped_weights", inner_epochs=2,
        sampling="{max_new_tokens: 9, temperature: 1.3, stop: [a, e]}",
    )),
    "raft": ("GRPOModule", options(**RECITED, advantage="dermiq.objectives.advantages.PositiveOnly", kl_coef=0.0)),
    "sft": ("SFTModule", [*VALIDATED, "--trainer.accumulate_grad_batches=2"]),
    "sft, packed": ("SFTModule", options(packing="true")),
    "dpo": ("DPOModule", [*VALIDATED, *options(full_margin=0.3, sft_coef=0.2, label_smoothing=0.1)]),
    "ipo": ("DPOModule", options(loss="dermiq.objectives.losses.dpo_ipo", length_normalised="true", full_margin=0.7)),
    "robust": ("DPOModule", options(loss="dermiq.objectives.losses.dpo_robust", label_smoothing=0.2)),
}  # fmt: skip
TWO_STEPS = (
    "--trainer.max_steps=2",
    "--trainer.log_every_n_steps=1",
    "--model.rewards={class_path: dermiq.rewards.RewardMixture, init_args: {terms: {"
    "diagnosis: {fn: dermiq.rewards.diagnosis, weight: 1.0}, letters: {fn: support.parts.letters, weight: 0.3}}}}",
)
SLOW = ("raft", "ipo", "robust", "rloo, cispo", "grpo, dapo")


@pytest.mark.parametrize(
    "name", [pytest.param(each, marks=pytest.mark.slow) if each in SLOW else each for each in RUNS]
)
def test_a_bfloat16_default_dtype_changes_nothing(name, lab, tmp_path):
    """Weights, optimiser and curves, bit for bit: whatever a step makes says its dtype."""
    stage, more = RUNS[name]
    orthonormal.cache_clear()
    for half in (True, False):
        watch = "support.parts.HalfByDefault, " if half else ""
        callbacks = f"--trainer.callbacks=[{watch}dermiq.trainer.checkpointing.RunCheckpoint]"
        lab.run("fit", stage, tmp_path / str(half), *TWO_STEPS, callbacks, *more)
    assert torch.get_default_dtype() == torch.float32
    single, half = (tmp_path / str(half) for half in (False, True))
    assert different(adapter(single), adapter(half)) == []
    assert different(checkpoint(single)["optimizer_states"], checkpoint(half)["optimizer_states"]) == []
    assert logged(single) == logged(half) and logged(single)


def test_candidates_and_evaluation_do_not_depend_on_it_either(backbone):
    module = module_of(backbone, eval_samples=3, retriever=Retriever(budget=40))
    collate = PromptCollate(backbone.model_id, "Look.", 5)
    batch = collate([Item(sample_of(name), [picture(len(name), 48)]) for name in ("a", "bb")])
    expected = module.predict_step(batch, 0), module.evaluate(batch)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert different((module.predict_step(batch, 0), module.evaluate(batch)), expected) == []
    finally:
        torch.set_default_dtype(torch.float32)
