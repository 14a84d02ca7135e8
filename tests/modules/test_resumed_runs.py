"""What a run may be resumed with, through the command line: its numbers are in force, its parts stay the same."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from dermiq.modules.resuming import policy_of, refuse_other_policy
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from dermiq.run_directory import RunDirectory
from dermiq.schema import DermIQError, TrainingError
from support.families import build_model_dir
from support.runs import checkpoint, different

OPTIMIZER, SCHEDULER = "--model.optimizer", "--model.scheduler"
COSINE = f"{SCHEDULER}=dermiq.modules.schedules.CosineWithWarmup"
BACKBONE = "--model.backbone"
TWO, THREE = "--trainer.max_steps=2", "--trainer.max_steps=3"
RESUME = "--ckpt_path=last"
INFINITE = [
    f"{OPTIMIZER}=torch.optim.SGD",
    f"{OPTIMIZER}.init_args.lr=3e38",
    f"{OPTIMIZER}.init_args.weight_decay=100",
]
CHECKPOINTS = "dermiq.trainer.checkpointing.RunCheckpoint"
EVERY_STEP = f"--trainer.callbacks=[{{class_path: {CHECKPOINTS}, init_args: {{every_n_train_steps: 1}}}}]"


def length(warmup, total):
    return [f"{SCHEDULER}.init_args.warmup_steps={warmup}", f"{SCHEDULER}.init_args.total_steps={total}"]


@pytest.fixture(scope="module")
def stopped(lab, tmp_path_factory):
    """Runs of two steps, made once each: (stage, options) -> directory to copy."""
    made = {}

    def run(stage, *options):
        if (stage, options) not in made:
            made[stage, options] = tmp_path_factory.mktemp("stopped")
            lab.run("fit", stage, made[stage, options], TWO, *options)
        return made[stage, options]

    return run


@pytest.fixture
def resume(lab, stopped, tmp_path):
    """Resume a copy of a run, up to its third step."""

    def go_on(stage, before=(), now=(), subcommand="fit"):
        shutil.copytree(stopped(stage, *before), tmp_path / "run")
        until = [THREE] if subcommand == "fit" else []
        lab.run(subcommand, stage, tmp_path / "run", *until, *now, RESUME)
        return tmp_path / "run"

    return go_on


@pytest.mark.parametrize("stage", [pytest.param("SFTModule", marks=pytest.mark.slow), "GRPOModule"])
def test_the_numbers_given_are_in_force_and_recorded(stage, resume):
    numbers = {"lr": 0.0001, "weight_decay": 0.3, "betas": [0.5, 0.6]}
    run = resume(stage, now=[f"{OPTIMIZER}.init_args.{name}={value}" for name, value in numbers.items()])
    config = yaml.safe_load((run / "config.yaml").read_text())["model"]["init_args"]["optimizer"]["init_args"]
    (group,) = checkpoint(run)["optimizer_states"][0]["param_groups"]
    for name, value in numbers.items():
        assert config[name] == value and (list(group[name]) if name == "betas" else group[name]) == value


@pytest.mark.slow
def test_a_schedule_goes_on_as_if_it_had_been_given_from_the_start(lab, resume, tmp_path):
    run = resume("SFTModule", [COSINE, *length(1, 12)], [COSINE, *length(2, 6)])
    lab.run("fit", "SFTModule", tmp_path / "whole", THREE, COSINE, *length(2, 6))
    for part in ("param_groups", "lr_schedulers"):
        now, whole = (
            state.get(part, state["optimizer_states"][0].get(part))
            for state in map(checkpoint, (run, tmp_path / "whole"))
        )
        assert different(now, whole) == []


@pytest.mark.parametrize("stage", ["SFTModule", pytest.param("GRPOModule", marks=pytest.mark.slow)])
def test_a_lower_rate_is_the_way_out_of_a_policy_that_is_destroyed(stage, lab, tmp_path):
    """The first rate of the warm-up is 0, so that the first checkpoint is whole; the second step ruins the policy."""
    lab.run("fit", stage, tmp_path, COSINE, *length(3, 30), f"{OPTIMIZER}.init_args.lr=1e30", "--trainer.max_steps=1")
    more = [COSINE, *length(3, 30), "--trainer.max_steps=4", RESUME]
    with pytest.raises(
        TrainingError, match=r"not finite on the samples|from before this step: lower the learning rate"
    ):
        lab.run("fit", stage, tmp_path, *more, f"{OPTIMIZER}.init_args.lr=1e30")
    assert checkpoint(tmp_path)["global_step"] == 1
    lab.run("fit", stage, tmp_path, *more, f"{OPTIMIZER}.init_args.lr=1e-4")
    assert checkpoint(tmp_path)["global_step"] == 4


@pytest.mark.parametrize(
    ("stage", "options", "words"),
    [
        (
            "GRPOModule",
            ["--model.advantage=support.parts.Infinite"],
            "at step 0 .* Nothing .* is saved yet: .*start it again",
        ),
        (
            "SFTModule",
            [*INFINITE, EVERY_STEP],
            "weights are not finite",
        ),
        pytest.param(
            "SFTModule", [f"{OPTIMIZER}.init_args.lr=1e30", EVERY_STEP], "is of this very step", marks=pytest.mark.slow
        ),
    ],
)
def test_the_way_out_is_one_that_there_is(stage, options, words, lab, tmp_path):
    with pytest.raises(TrainingError, match=words):
        lab.run("fit", stage, tmp_path, *options, THREE)


CHANGES = {
    "optimiser": ([], [f"{OPTIMIZER}=torch.optim.SGD"], "optimizer torch.AdamW -> torch.SGD"),
    "state": ([], [f"{OPTIMIZER}.init_args.amsgrad=true"], "has not kept max_exp_avg_sq"),
    "scheduler added": ([], [COSINE, *length(1, 9)], "scheduler None -> dermiq.CosineWithWarmup"),
    "scheduler dropped": ([COSINE, *length(1, 9)], [], "scheduler dermiq.CosineWithWarmup -> None"),
    "accumulation": ([], ["--trainer.accumulate_grad_batches=2"], "accumulated batches 1 -> 2"),
    "alpha": ([], [f"{BACKBONE}.lora.alpha=99"], "lora.lora_alpha 16 -> 99"),
    "rank": ([], [f"{BACKBONE}.lora.rank=4"], "16 of another shape"),
    "targets": ([], [f"{BACKBONE}.lora.targets=[q_proj]"], "12 unknown"),
    "vision": ([], [f"{BACKBONE}.lora.vision=true"], "weights missing"),
    "dtype": ([], [f"{BACKBONE}.dtype=bfloat16"], "dtype torch.float32 -> torch.bfloat16"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("optimiser", "alpha"))) for name in CHANGES]
)
def test_another_part_is_refused(name, resume):
    before, now, words = CHANGES[name]
    with pytest.raises(TrainingError, match=words):
        resume("SFTModule", before, now)


@pytest.mark.slow
def test_another_accumulation_of_grpo_is_refused(resume):
    with pytest.raises(TrainingError, match=r"accumulated batches 1 -> 2"):
        resume("GRPOModule", [], ["--model.accumulate_batches=2"])


IN_FORCE = [
    f"{BACKBONE}.lora.dropout=0.1",
    "--model.max_grad_norm=0.5",
    "--trainer.precision=bf16-mixed",
    "--data.num_workers=1",
    "--data.eval_batch_size=3",
]


@pytest.mark.slow
def test_other_numbers_of_a_run_are_in_force(resume):
    assert checkpoint(resume("SFTModule", [], IN_FORCE))["global_step"] == 3


def test_an_end_that_is_past_is_refused(resume):
    options = ["--trainer.limit_train_batches=1", "--trainer.max_epochs=3"]
    with pytest.raises(TrainingError, match=r"is of epoch 2 .* and --trainer.max_epochs=1 ends training before it"):
        resume("SFTModule", options, [*options, "--trainer.max_epochs=1"])


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["SFTModule", "GRPOModule"])
def test_a_schedule_that_comes_to_its_end_is_a_sentence(stage, lab, tmp_path):
    one_cycle = [f"{SCHEDULER}=torch.optim.lr_scheduler.OneCycleLR", f"{SCHEDULER}.init_args.max_lr=0.1"]
    with pytest.raises(TrainingError, match=r"torch.OneCycleLR cannot go beyond step 3"):
        lab.run("fit", stage, tmp_path, THREE, *one_cycle, f"{SCHEDULER}.init_args.total_steps=2")


# The base model


def policy(model, **options):
    """What is recorded of a policy on a model."""
    backbone = VLMBackbone(str(model), LoRA(**{"rank": 2} | options))
    backbone.load()
    return policy_of(backbone)


@pytest.fixture(scope="module")
def models(family_dir, tmp_path_factory):
    """Directories of models with the shapes of the one that runs train on."""
    root = tmp_path_factory.mktemp("models")
    shutil.copytree(family_dir("idefics3"), root / "moved")
    build_model_dir("idefics3", root / "other", seed=5)
    for name in ("theta", "weight"):
        shutil.copytree(family_dir("idefics3"), root / name)
    config = json.loads((root / "theta" / "config.json").read_text())
    config["text_config"]["rms_norm_eps"] = 0.5
    (root / "theta" / "config.json").write_text(json.dumps(config))
    weights = load_file(root / "weight" / "model.safetensors")
    name = next(name for name in sorted(weights) if name.endswith("o_proj.weight"))
    weights[name] = weights[name] * 1.001  # a merged or a further trained model
    save_file(weights, root / "weight" / "model.safetensors", {"format": "pt"})
    return root


@pytest.mark.parametrize("trains", [True, False])
def test_what_is_recorded_tells_policies_apart(trains, models, family_dir):
    recorded = policy(family_dir("idefics3"))
    for same in (policy(models / "moved"), policy(models / "moved", dropout=0.5)):
        refuse_other_policy(recorded, same, trains)
    for name, words in (("other", "other weights"), ("weight", "other weights"), ("theta", "rms_norm_eps .* -> 0.5")):
        with pytest.raises(TrainingError, match=f"on another base model .*idefics3.*{name}.*{words}"):
            refuse_other_policy(recorded, policy(models / name), trains)
    with pytest.raises(TrainingError, match=r"lora.lora_alpha 16 -> 99. Resume with"):
        refuse_other_policy(recorded, policy(models / "moved", alpha=99), trains)


@pytest.mark.slow
@pytest.mark.parametrize("subcommand", ["fit", "test"])
@pytest.mark.parametrize(
    ("name", "words"), [("other", "other weights"), ("weight", "other weights"), ("theta", "rms_norm_eps .* -> 0.5")]
)
def test_another_base_model_of_the_same_shapes_is_refused(subcommand, name, words, models, resume):
    with pytest.raises(TrainingError, match=f"trained on another base model .*{words}.*--model.backbone.model_id"):
        resume("SFTModule", [], [f"{BACKBONE}.model_id={models / name}"], subcommand)


@pytest.mark.parametrize("subcommand", [pytest.param("fit", marks=pytest.mark.slow), "test"])
def test_the_same_model_elsewhere_is_the_same(subcommand, models, resume):
    resume("SFTModule", [], [f"{BACKBONE}.model_id={models / 'moved'}"], subcommand)


@pytest.mark.slow
def test_an_adapter_is_judged_on_a_base_of_another_dtype(resume):
    resume("SFTModule", [], [f"{BACKBONE}.dtype=bfloat16"], "test")


@pytest.mark.slow
def test_a_run_that_began_with_an_adapter_began_with_that_one(lab, stopped, tmp_path):
    first, second = stopped("SFTModule") / "adapter", tmp_path / "second"
    shutil.copytree(first, second)
    weights = load_file(second / "adapter_model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, second / "adapter_model.safetensors")
    began = f"{BACKBONE}.adapter_path="
    lab.run("fit", "GRPOModule", tmp_path / "run", TWO, f"{began}{first}")
    with pytest.raises(TrainingError, match=r"the run began with another adapter"):
        lab.run("fit", "GRPOModule", tmp_path / "run", THREE, f"{began}{second}", RESUME)
    shutil.copytree(first, tmp_path / "moved")
    lab.run("fit", "GRPOModule", tmp_path / "run", THREE, f"{began}{tmp_path / 'moved'}", RESUME)


# Checkpoints of earlier versions


def test_a_checkpoint_that_records_nothing_of_what_it_belongs_to_resumes(lab, stopped, tmp_path):
    shutil.copytree(stopped("SFTModule"), tmp_path / "run")
    before = checkpoint(tmp_path / "run")
    del before["dermiq"]["policy"], before["dermiq"]["settings"]
    (position,) = before["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    del position["order"]["rows"]
    torch.save(before, RunDirectory(tmp_path / "run").last_checkpoint)
    lab.run("fit", "SFTModule", tmp_path / "run", THREE, RESUME, f"{OPTIMIZER}.init_args.lr=0.002")
    now = checkpoint(tmp_path / "run")
    assert now["optimizer_states"][0]["param_groups"][0]["lr"] == 0.002 and now["dermiq"]["settings"]
    with pytest.raises(DermIQError, match=r"scheduler None -> dermiq.CosineWithWarmup"):
        torch.save(before, RunDirectory(tmp_path / "run").last_checkpoint)
        lab.run("fit", "SFTModule", tmp_path / "run", THREE, RESUME, COSINE, *length(1, 9))


# Broken inside


INSIDE = {
    "no loops": (lambda made: made.update(loops={}), "lacks fit_loop"),
    "loops of another kind": (lambda made: made["loops"].update(fit_loop=[]), "fit_loop is a list"),
    "half a loop": (lambda made: made["loops"]["fit_loop"].pop("epoch_progress"), "lacks fit_loop/epoch_progress"),
    "no count": (lambda made: made["loops"]["fit_loop"]["epoch_progress"]["current"].pop("ready"), "current/ready"),
    "no place": (lambda made: made["loops"]["fit_loop"]["state_dict"].update(combined_loader=[{}]), "lacks epoch"),
    "no optimiser": (lambda made: made.pop("optimizer_states"), "lacks optimizer_states"),
    "no optimisers": (lambda made: made.update(optimizer_states=[]), "0 optimisers -> 1"),
    "an odd optimiser": (lambda made: made.update(optimizer_states=[5]), "is a int and no dict"),
    "half an optimiser": (lambda made: made["optimizer_states"][0].pop("param_groups"), "lacks param_groups"),
    "no schedules": (lambda made: made.pop("lr_schedulers"), "lacks lr_schedulers"),
    "no step": (lambda made: made.pop("global_step"), "lacks global_step"),
    "callbacks of another kind": (lambda made: made.update(callbacks=3), "callbacks is a int"),
    "an odd record": (lambda made: made["dermiq"].update(settings=4), "record of its settings is incomplete"),
    "an odd policy": (
        lambda made: made["dermiq"].update(policy={"config": 4}),
        "record of its policy is incomplete: it lacks model_id",
    ),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in ("half a loop", "no optimiser"))) for name in INSIDE],
)
def test_what_is_broken_inside_is_a_sentence(name, lab, stopped, tmp_path):
    change, words = INSIDE[name]
    run = shutil.copytree(stopped("SFTModule"), tmp_path / "run")
    made = checkpoint(run)
    change(made)
    torch.save(made, RunDirectory(run).last_checkpoint)
    with pytest.raises(TrainingError, match=words):
        lab.run("fit", "SFTModule", run, THREE, RESUME)


# The best checkpoint


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The dirpath has changed")
def test_the_best_checkpoint_is_found_and_used(lab, tmp_path):
    best = "{class_path: lightning.pytorch.callbacks.ModelCheckpoint, init_args: {monitor: val/reward, mode: max}}"
    options = ["--trainer.limit_val_batches=1", "--trainer.max_epochs=3", "--trainer.limit_train_batches=1"]
    lab.run("fit", "SFTModule", tmp_path / "run", *options, f"--trainer.callbacks+={best}")
    shutil.move(tmp_path / "run", tmp_path / "moved")
    again = [f"--trainer.callbacks+={best}", "--ckpt_path=best"]
    cli = lab.run("test", "SFTModule", tmp_path / "moved", *again)
    (kept,) = (path for path in (tmp_path / "moved").rglob("*.ckpt") if path.name != "last.ckpt")
    assert cli.trainer.ckpt_path == str(kept)
    found = torch.load(kept, weights_only=True)["state_dict"]
    assert different({name: value for name, value in cli.model.state_dict().items() if name in found}, found) == []
    kept.unlink()
    with pytest.raises(TrainingError, match=r"best checkpoint of the run .* is gone. Use --ckpt_path=last"):
        lab.run("test", "SFTModule", tmp_path / "moved", *again)


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_no_best_checkpoint_is_a_sentence(subcommand, lab, stopped, tmp_path):
    with pytest.raises(TrainingError, match=r"keeps no best checkpoint: --ckpt_path=last is its last one"):
        lab.run(subcommand, "SFTModule", stopped("SFTModule"), "--ckpt_path=best")
    RunDirectory(tmp_path).last_checkpoint.mkdir(parents=True)
    with pytest.raises(TrainingError, match=r"last.ckpt is a directory and no checkpoint"):
        lab.run(subcommand, "SFTModule", tmp_path, RESUME)
