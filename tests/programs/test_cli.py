"""The command line itself: help, configs and overrides, and what cli.py and the console script run."""

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import yaml

from dermiq.cli import BASE_CONFIG, main
from support.runs import STAGES, logged

REPOSITORY = Path(__file__).parents[2]


def printed(capsys, arguments):
    """The configuration that `--print_config` shows."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 0
    return yaml.safe_load(capsys.readouterr().out)


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_print_config_shows_base_and_experiment(subcommand, lab, tmp_path, capsys):
    config = printed(capsys, lab.arguments(subcommand, "GRPOModule", tmp_path, "--print_config"))
    assert config["trainer"]["num_sanity_val_steps"] == 0  # of base.yaml
    assert config["trainer"]["default_root_dir"] == str(tmp_path)
    assert config["model"]["init_args"]["group_size"] == 3
    assert not list(tmp_path.iterdir())


def test_print_config_is_a_config(lab, tmp_path, capsys):
    shown = printed(capsys, lab.arguments("fit", "GRPOModule", tmp_path, "--print_config"))
    (tmp_path / "again.yaml").write_text(yaml.safe_dump(shown))
    assert printed(capsys, ["fit", f"--config={tmp_path / 'again.yaml'}", "--print_config"]) == shown


def test_later_configs_and_overrides_win(lab, tmp_path, capsys):
    (tmp_path / "second.yaml").write_text(
        "trainer: {max_epochs: 7, precision: bf16-mixed}\nmodel: {init_args: {kl_coef: 0.5, clip_high: 0.4}}\n"
    )
    second = [f"--config={tmp_path / 'second.yaml'}", "--model.clip_high=0.3", "--trainer.max_steps=5"]
    config = printed(capsys, lab.arguments("fit", "GRPOModule", tmp_path, *second, "--print_config"))
    assert config["trainer"]["max_epochs"] == 7 and config["trainer"]["max_steps"] == 5
    assert config["trainer"]["precision"] == "bf16-mixed" and config["trainer"]["accelerator"] == "cpu"
    arguments = config["model"]["init_args"]
    assert (arguments["kl_coef"], arguments["clip_high"], arguments["group_size"]) == (0.5, 0.3, 3)


def test_what_model_and_data_share_is_said_once(lab, tmp_path, capsys):
    """The data encode by the model's processor and reserve the context that its longest completion needs."""
    from dermiq.cli import run

    arguments = lab.arguments("fit", "SFTModule", tmp_path, "--trainer.max_steps=1")
    cli = run([*arguments, "--model.eval_sampling.max_new_tokens=9"])
    assert cli.datamodule.model_id == cli.model.backbone.model_id == str(lab.family_dir("idefics3"))
    assert cli.datamodule.max_new_tokens_reserve == 9


@pytest.mark.parametrize(
    ("stage", "subcommand", "sampled", "judged"),
    [
        ("GRPOModule", "fit", 600, 9),
        ("GRPOModule", "test", 9, 600),
        ("GRPOModule", "fit", None, 9),
        ("CandidateModule", "predict", 300, None),
    ],
)
def test_the_context_holds_the_longest_completion(sampled, judged, stage, subcommand, lab, tmp_path, monkeypatch):
    import dermiq.cli

    monkeypatch.setattr(dermiq.cli.DermIQCLI, "_run_subcommand", lambda self, subcommand: None)
    given = {"sampling": sampled, "eval_sampling": judged}
    config = yaml.safe_load(lab.config("GRPOModule").read_text())
    options = config["model"]["init_args"]
    for name in given:
        options.pop(name, None)
    if stage == "CandidateModule":
        config["model"] = {
            "class_path": "dermiq.modules.CandidateModule",
            "init_args": {name: options[name] for name in ("backbone", "rewards")},
        }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    more = [f"--model.{name}.max_new_tokens={tokens}" for name, tokens in given.items() if tokens]
    cli = dermiq.cli.run(
        [subcommand, f"--config={tmp_path / 'config.yaml'}", f"--trainer.default_root_dir={tmp_path}", *more]
    )
    assert cli.datamodule.max_new_tokens_reserve == max(sampled or 256, judged or 256)


def test_the_saved_config_is_the_record_of_the_run(lab, tmp_path):
    lab.run("fit", "GRPOModule", tmp_path, "--trainer.max_steps=1", "--model.kl_coef=0.125")
    saved = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert saved["model"]["init_args"]["kl_coef"] == 0.125
    assert saved["seed_everything"] == 0 and saved["trainer"]["max_steps"] == 1
    before = (tmp_path / "config.yaml").read_text()
    lab.run("test", "GRPOModule", tmp_path, "--model.kl_coef=0.5")
    assert (tmp_path / "config.yaml").read_text() == before


def test_the_seed_is_the_users(lab, tmp_path):
    losses = set()
    for seed in (0, 1):
        root = tmp_path / str(seed)
        lab.run("fit", "SFTModule", root, f"--seed_everything={seed}", f"--data.seed={seed}",
                "--trainer.max_steps=1")  # fmt: skip
        losses.add(logged(root)[0]["train/loss"])
    assert len(losses) == 2


@pytest.mark.parametrize(
    ("override", "text"),
    [
        ("--model.group_sise=4", "group_sise"),
        ("--trainer.max_steps=many", "max_steps"),
        ("--model.sampling.temperature=0", "dermiq: The configuration cannot be used: GRPO learns from"),
        ("--model.backbone.lora.rank=0", "LoRA needs rank >= 1"),
        ("--data.limit.foo=3", "`limit` has 'foo'; it may have train, val, test."),
        ("--model.advantage.class_path=dermiq.objectives.advantages.None", "advantage"),
    ],
)
def test_a_wrong_option_is_named(override, text, lab, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(lab.arguments("fit", "GRPOModule", tmp_path, override))
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert text in error and "Traceback" not in error


def test_a_missing_config_file_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", f"--config={tmp_path / 'none.yaml'}"])
    assert stopped.value.code == 2 and "none.yaml" in capsys.readouterr().err


def test_the_console_script_and_the_shim_are_the_same_program():
    (script,) = entry_points(group="console_scripts", name="dermiq")
    assert script.load() is main
    shim = subprocess.run(
        [sys.executable, REPOSITORY / "cli.py", "--help"], capture_output=True, text=True, cwd=REPOSITORY
    )
    assert shim.returncode == 0
    assert all(name in shim.stdout for name in ("fit", "validate", "test", "predict"))


def test_help_names_options_in_their_short_form(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    shown = capsys.readouterr().out
    assert "model.backbone.model_id --> data.model_id" in shown and ".init_args" not in shown


@pytest.mark.parametrize(
    ("options", "name", "value"),
    [
        ("--model.full_margin=0.5 --model.full_margin=null", "model.init_args.full_margin", None),
        ("--model.reference_cache=x --model.reference_cache=null", "model.init_args.reference_cache", None),
        ("--model.backbone.lora=null --model.backbone.lora={}", "model.init_args.backbone.init_args.lora.rank", 8),
        (
            "--data.sources.train=dermiq.datamodules.sources.Preferences --data.sources.train.path=x",
            "data.init_args.sources.train.init_args.path",
            "x",
        ),
    ],
)
def test_what_refusals_advise_is_a_command_line(options, name, value, capsys):
    config = ["fit", f"--config={REPOSITORY / 'configs' / 'dpo.yaml'}"]
    found = printed(capsys, [*config, *options.split(), "--print_config"])
    for part in name.split("."):
        found = found[part]
    assert found == value


def test_the_base_config_is_the_repositorys():
    assert BASE_CONFIG.samefile(REPOSITORY / "configs" / "base.yaml")


@pytest.mark.parametrize("stage", STAGES)
def test_loggers_can_be_switched_off_and_replaced(stage, lab, tmp_path):
    lab.run("fit", stage, tmp_path / "none", "--trainer.max_steps=1", "--trainer.logger=false")
    assert {path.name for path in (tmp_path / "none").iterdir()} == {"adapter", "checkpoints", "config.yaml"}
    own = "--trainer.logger={class_path: CSVLogger, init_args: {save_dir: %s}}" % (tmp_path / "own")
    lab.run("fit", stage, tmp_path / "run", "--trainer.max_steps=1", own)
    assert list((tmp_path / "own").rglob("metrics.csv")) and not (tmp_path / "run" / "tensorboard").exists()
