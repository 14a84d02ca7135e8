"""Options of Lightning's trainer that a stage cannot heed: they work, or one sentence says what to give instead."""

import pytest
import yaml

from dermiq.cli import main

AT_MOST = "Give --trainer.val_check_interval at most the batches of an epoch"


@pytest.mark.parametrize(
    ("stage", "option", "text"),
    [
        ("GRPOModule", "gradient_clip_val=1", "clips by --model.max_grad_norm"),
        ("GRPOModule", "accumulate_grad_batches=2", "accumulates by --model.accumulate_batches"),
        ("SFTModule", "val_check_interval=500", AT_MOST),
        ("SFTModule", "val_check_interval=-1", AT_MOST),
        ("SFTModule", "enable_checkpointing=false", "--trainer.enable_checkpointing=false would lose the run"),
        ("SFTModule", "barebones=true", "--trainer.barebones=true would lose the run"),
        ("SFTModule", "limit_train_batches=-1", "limit_train_batches"),
        ("SFTModule", "limit_val_batches=1.5", "limit_val_batches"),
        ("SFTModule", "overfit_batches=-1", "overfit_batches"),
        ("SFTModule", "devices=x", "--trainer.devices"),
        ("SFTModule", "accelerator=gpux", "--trainer.accelerator (auto takes what there is)"),
        ("SFTModule", "max_epochs=-7", "max_epochs"),
        ("SFTModule", "strategy=nonsense", "--trainer.strategy"),
        ("SFTModule", "check_val_every_n_epoch=0.5", "check_val_every_n_epoch takes a whole number"),
    ],
)
def test_one_sentence_names_the_option(stage, option, text, lab, tmp_path, capsys):
    validated = [] if "limit_val" in option else ["--trainer.limit_val_batches=1"]
    with pytest.raises(SystemExit) as stopped:
        main(lab.arguments("fit", stage, tmp_path, f"--trainer.{option}", *validated))
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("dermiq: ") and text in line
    about_the_machine = any(word in option for word in ("devices", "accelerator", "strategy"))
    assert ("See --trainer.accelerator" in line) == about_the_machine


def test_a_run_without_a_progress_bar(lab, tmp_path, capsys):
    cli = lab.run("fit", "SFTModule", tmp_path, "--trainer.max_steps=1", "--trainer.enable_progress_bar=false")
    assert cli.trainer.progress_bar_callback is None and (tmp_path / "adapter").is_dir()
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["trainer"]["enable_progress_bar"] is False
    assert "Epoch 0" not in capsys.readouterr().out


def test_an_adapter_path_can_be_taken_back(lab, tmp_path):
    cli = lab.run(
        "fit", "SFTModule", tmp_path, "--trainer.max_steps=1", "--model.backbone.adapter_path=null",
        "--model.backbone.adapter_path=gone", "--model.backbone.adapter_path=null",
    )  # fmt: skip
    assert cli.model.backbone.adapter_path is None
