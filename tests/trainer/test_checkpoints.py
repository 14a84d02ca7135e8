"""Resume, refusal and hand-over: an interrupted run ends where an uninterrupted one does, bit for bit."""

import shutil
import signal

import pytest
import torch

from dermiq.cli import main
from dermiq.schema import TrainingError
from support.runs import DATA, STAGES, adapter, checkpoint, different, logged

SCHEDULE = [
    "--model.scheduler=torch.optim.lr_scheduler.ExponentialLR",
    "--model.scheduler.gamma=0.7",
]
DROPOUT = ["--model.backbone.lora.dropout=0.3"]
LEASH = ["--model.kl_coef=0.1", "--model.reference_sync_every=3"]
SETTINGS = {
    "sft": ("SFTModule", [*SCHEDULE, *DROPOUT]),
    "sft-accumulated": ("SFTModule", ["--trainer.accumulate_grad_batches=2", *SCHEDULE]),
    "dpo": ("DPOModule", [*SCHEDULE, *DROPOUT]),
    "grpo": ("GRPOModule", [*SCHEDULE, *DROPOUT, *LEASH]),
    "grpo-accumulated": ("GRPOModule", ["--model.accumulate_batches=2", *SCHEDULE]),
    "grpo-inner-epochs": ("GRPOModule", ["--model.inner_epochs=2", *LEASH]),
}
TWO_EPOCHS = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=4"]


@pytest.fixture(autouse=True)
def own_ctrl_c():
    """Lightning ignores Ctrl-C for good once it has handled one."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def assert_same_end(whole, parts, options):
    first, second = checkpoint(whole), checkpoint(parts)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "dermiq", "global_step", "epoch"):
        assert different(first[part], second[part]) == [], part
    assert different(adapter(whole), adapter(parts)) == []
    # Batches that make no step have no gradient norm; Lightning logs the one before it again, if there was one.
    without = ("train/grad_norm",) if any("accumulate_batches" in option for option in options) else ()
    assert different(logged(whole, without), logged(parts, without)) == [] and len(logged(whole)) >= 4


@pytest.mark.parametrize(
    ("stage", "options"),
    [
        pytest.param(
            *setting, id=name, marks=[pytest.mark.slow] * (name in ("dpo", "grpo-accumulated", "grpo-inner-epochs"))
        )
        for name, setting in SETTINGS.items()
    ],
)
def test_resumed_equals_uninterrupted(stage, options, lab, tmp_path):
    """Stopped within the first epoch, at its end and within the second; accumulation halves the number of steps."""
    options = [*TWO_EPOCHS, *options]
    lab.run("fit", stage, tmp_path / "whole", *options)
    steps = checkpoint(tmp_path / "whole")["global_step"]
    assert steps in (4, 8, 16)
    resume = []
    for stop in (steps // 4, steps // 2, steps * 3 // 4):
        lab.run("fit", stage, tmp_path / "parts", *options, f"--trainer.max_steps={stop}", *resume)
        assert checkpoint(tmp_path / "parts")["global_step"] == stop
        resume = ["--ckpt_path=last"]
    lab.run("fit", stage, tmp_path / "parts", *options, *resume)
    assert_same_end(tmp_path / "whole", tmp_path / "parts", options)


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_within_an_accumulation(stage, lab, tmp_path):
    """Ctrl-C in the third of four batches, two to a step: the open gradient is kept and taken up."""
    option = "model.init_args.accumulate_batches" if stage == "GRPOModule" else "trainer.accumulate_grad_batches"
    options = [*TWO_EPOCHS, f"--{option}=2"]
    lab.run("fit", stage, tmp_path / "whole", *options)
    interrupted = lab.arguments("fit", stage, tmp_path / "parts", *options)
    with pytest.raises(SystemExit) as stopped:
        main([*interrupted, "--trainer.callbacks+=support.parts.InterruptAt", "--trainer.callbacks.batch=2"])
    assert stopped.value.code == 130
    kept = checkpoint(tmp_path / "parts")
    assert kept["global_step"] == 1
    assert all(gradient.abs().max() > 0 for gradient in kept["dermiq"]["gradients"].values())
    lab.run("fit", stage, tmp_path / "parts", *options, "--ckpt_path=last")
    assert_same_end(tmp_path / "whole", tmp_path / "parts", options)


@pytest.mark.parametrize("stage", STAGES)
def test_validation_and_saving_often_change_nothing(stage, lab, tmp_path):
    lab.run("fit", stage, tmp_path / "plain", *TWO_EPOCHS)
    often = ["--trainer.limit_val_batches=1", "--trainer.val_check_interval=2"]
    callbacks = "[{class_path: dermiq.trainer.checkpointing.RunCheckpoint, init_args: {every_n_train_steps: 1}}]"
    lab.run("fit", stage, tmp_path / "often", *TWO_EPOCHS, *often, f"--trainer.callbacks={callbacks}")
    assert different(adapter(tmp_path / "plain"), adapter(tmp_path / "often")) == []


def test_the_adapter_is_that_of_the_checkpoint(lab, tmp_path):
    """With a validation at the end, after which Lightning would save on its own account."""
    lab.run("fit", "GRPOModule", tmp_path, *TWO_EPOCHS, "--trainer.limit_val_batches=1")
    state = checkpoint(tmp_path)["state_dict"]
    policy = {key.removeprefix("backbone.model.").replace(".default", ""): value for key, value in state.items()}
    assert different(policy, adapter(tmp_path)) == []
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["last.ckpt"]


def test_a_checkpoint_holds_the_adapter_and_nothing_else_of_the_model(lab, tmp_path):
    lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=1", "--model.reference_sync_every=5")
    state = checkpoint(tmp_path)["state_dict"]
    assert len(state) == 32 and all(".lora_" in key for key in state)
    assert sum(".reference." in key for key in state) == 16


# Refusals


@pytest.fixture(scope="module")
def trained(lab, tmp_path_factory):
    """One step of each stage."""
    root = tmp_path_factory.mktemp("trained")
    for stage in DATA:
        lab.run("fit", stage, root / stage, "--trainer.max_steps=1")
    return root


def refusal(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith("dermiq: ")
    return lines[-1]


@pytest.mark.parametrize("subcommand", ["fit", "test"])
def test_the_checkpoint_of_another_stage(subcommand, lab, trained, tmp_path, capsys):
    path = trained / "SFTModule" / "checkpoints" / "last.ckpt"
    arguments = lab.arguments(subcommand, "GRPOModule", tmp_path, f"--ckpt_path={path}")
    message = refusal(capsys, arguments)
    assert "This checkpoint is of a SFTModule, this run is a GRPOModule" in message
    assert f"--model.backbone.adapter_path={trained / 'SFTModule' / 'adapter'}" in message


def test_the_checkpoint_of_another_adapter(lab, trained, tmp_path, capsys):
    path = trained / "SFTModule" / "checkpoints" / "last.ckpt"
    targets = "--model.backbone.lora.targets=[q_proj, up_proj]"
    message = refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path, targets, f"--ckpt_path={path}"))
    assert (
        "The checkpoint's adapter does not fit this run: 4 weights missing, 12 unknown, 0 of another shape (first: "
        in message
    )
    assert "Resume with the model and the LoRA options the run began with (its config.yaml)." in message


def test_a_checkpoint_with_renamed_weights(lab, trained, tmp_path, capsys):
    whole = checkpoint(trained / "SFTModule")
    whole["state_dict"] = {key.replace("q_proj", "query"): value for key, value in whole["state_dict"].items()}
    torch.save(whole, tmp_path / "renamed.ckpt")
    arguments = lab.arguments("test", "SFTModule", tmp_path, f"--ckpt_path={tmp_path / 'renamed.ckpt'}")
    assert "4 weights missing, 4 unknown" in refusal(capsys, arguments)


def test_a_checkpoint_of_another_rank(lab, trained, tmp_path, capsys):
    path = trained / "SFTModule" / "checkpoints" / "last.ckpt"
    rank = "--model.backbone.lora.rank=4"
    message = refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path, rank, f"--ckpt_path={path}"))
    assert "0 weights missing, 0 unknown, 16 of another shape" in message


def test_a_checkpoint_of_another_program(lab, trained, tmp_path, capsys):
    foreign = checkpoint(trained / "SFTModule")
    del foreign["dermiq"]
    torch.save(foreign, tmp_path / "foreign.ckpt")
    arguments = lab.arguments("fit", "SFTModule", tmp_path, f"--ckpt_path={tmp_path / 'foreign.ckpt'}")
    assert "This checkpoint was not written by DermIQ" in refusal(capsys, arguments)


def test_a_broken_checkpoint(lab, tmp_path, capsys):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").write_bytes(b"PK\x03\x04 and no more")
    message = refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path, "--ckpt_path=last"))
    assert f"{tmp_path / 'checkpoints' / 'last.ckpt'}" in message and "cannot be read" in message


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_no_checkpoint_to_resume(subcommand, lab, tmp_path, capsys):
    message = refusal(capsys, lab.arguments(subcommand, "SFTModule", tmp_path, "--ckpt_path=last"))
    assert f"There is no checkpoint {tmp_path / 'checkpoints' / 'last.ckpt'}" in message
    assert "--trainer.default_root_dir" in message


def test_what_a_killed_run_left_half_written_is_not_resumed(lab, trained, tmp_path):
    shutil.copytree(trained / "SFTModule", tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "last.ckpt.partial").write_bytes(b"half")
    lab.run("fit", "SFTModule", tmp_path / "run", "--ckpt_path=last", "--trainer.max_steps=2")
    assert checkpoint(tmp_path / "run")["global_step"] == 2


def test_changed_data_within_an_epoch(lab, trained, tmp_path):
    path = trained / "SFTModule" / "checkpoints" / "last.ckpt"
    with pytest.raises(
        TrainingError, match=r"after 1 batches of epoch 0, and the data have changed .*batch_size 2 -> 3"
    ):
        lab.run("fit", "SFTModule", tmp_path, f"--ckpt_path={path}", "--data.batch_size=3")


# Hand-over


def test_the_adapter_of_one_stage_is_where_the_next_begins(lab, trained, tmp_path):
    """At a rate of 0, GRPO ends with the adapter that it began with, and its KL is 0."""
    handed_over = f"--model.backbone.adapter_path={trained / 'SFTModule' / 'adapter'}"
    still = "--model.optimizer.lr=0.0"
    lab.run("fit", "GRPOModule", tmp_path, handed_over, still, "--trainer.max_steps=1")
    assert different(adapter(trained / "SFTModule"), adapter(tmp_path)) == []
    assert float(logged(tmp_path)[0]["train/kl"]) == pytest.approx(0, abs=1e-7)
