"""Every precision trains, and the adapter stays in float32 under each."""

import pytest

from lab import STAGES, adapter

WATCHED = "--trainer.callbacks=[toys.WatchAdapter, dermiq.checkpointing.RunCheckpoint]"


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
@pytest.mark.parametrize("stage", STAGES)
def test_the_adapter_is_trained_in_float32(stage, precision, lab, tmp_path):
    """`toys.WatchAdapter` checks dtype and gradient at every step, and that all weights have moved at the end."""
    lab.run("fit", stage, tmp_path, f"--trainer.precision={precision}", "--trainer.max_steps=3", WATCHED)
    assert {str(value.dtype) for value in adapter(tmp_path).values()} == {"torch.float32"}


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_fully_trained_modules_keep_up(precision, lab, tmp_path):
    whole = "--model.init_args.backbone.init_args.lora.fully_trained=[connector, lm_head]"
    options = [f"--trainer.precision={precision}", "--trainer.max_steps=2", WATCHED, whole]
    lab.run("fit", "SFTModule", tmp_path, *options)
    assert any("lm_head" in key for key in adapter(tmp_path))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_a_bfloat16_base_trains(precision, lab, tmp_path):
    """As released weights are: the base in bfloat16, the adapter in float32."""
    base = "--model.init_args.backbone.init_args.dtype=bfloat16"
    options = [f"--trainer.precision={precision}", "--trainer.max_steps=2", WATCHED, base]
    lab.run("fit", "GRPOModule", tmp_path, *options)


@pytest.mark.parametrize("stage", STAGES)
def test_four_bits_train(stage, cpu, lab, tmp_path):
    four = "--model.init_args.backbone.init_args.load_in_4bit=true"
    lab.run("fit", stage, tmp_path, "--trainer.max_steps=2", WATCHED, four, family="qwen2_5_vl")
