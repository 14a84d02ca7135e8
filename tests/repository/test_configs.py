"""Every configuration that is a whole experiment can be instantiated, without weights and without data."""

from pathlib import Path

import pytest
import yaml
from lightning.pytorch.trainer.states import TrainerFn

import dermiq.cli
from dermiq.cli import main
from dermiq.datamodules import DermDataModule
from dermiq.modules import GRPOModule, StageModule

CONFIGS = Path(__file__).parents[2] / "configs"
BASE = CONFIGS / "base.yaml"


def content(path):
    return yaml.safe_load(path.read_text()) or {}


FILES = sorted(path for path in CONFIGS.rglob("*.yaml") if path.parent.name != "data")  # which is of the split tool
EXPERIMENTS = [path for path in FILES if {"model", "data"} <= content(path).keys()]
PARTS = [path for path in FILES if path not in EXPERIMENTS and path != BASE]


def name(path):
    return str(path.relative_to(CONFIGS))


def instantiated(monkeypatch, arguments):
    """The command line's objects, the subcommand itself left out."""
    monkeypatch.setattr(dermiq.cli.DermIQCLI, "_run_subcommand", lambda self, subcommand: None)
    return dermiq.cli.run(arguments)


def test_there_are_experiments():
    assert len(EXPERIMENTS) >= 4 and BASE.is_file()


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_an_experiment_instantiates(path, monkeypatch, tmp_path):
    cli = instantiated(
        monkeypatch, ["fit", f"--config={path}", "--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    )
    assert isinstance(cli.model, StageModule) and cli.model.backbone.model is None
    assert isinstance(cli.datamodule, DermDataModule)
    assert cli.trainer.state.fn is not TrainerFn.FITTING
    assert content(path)["trainer"]["default_root_dir"].startswith("runs/")
    if isinstance(cli.model, GRPOModule):
        tokens = cli.model.sampling.max_new_tokens
        assert tokens <= cli.datamodule.max_new_tokens_reserve, "the context would not hold a rollout"


@pytest.mark.parametrize("path", PARTS, ids=name)
def test_a_part_fits_on_an_experiment(path, monkeypatch, tmp_path):
    option = "--model.backbone" if "class_path" in content(path) else "--config"
    arguments = [f"--config={CONFIGS / 'grpo.yaml'}", f"{option}={path}", "--trainer.accelerator=cpu"]
    cli = instantiated(monkeypatch, ["fit", *arguments, f"--trainer.default_root_dir={tmp_path}"])
    assert isinstance(cli.model, StageModule)


@pytest.mark.parametrize("path", [*EXPERIMENTS, *PARTS], ids=name)
def test_a_config_says_what_it_is_and_how_to_launch_it(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert len(header) >= 2 and any("cli.py" in line and f"configs/{name(path)}" in line for line in header)


@pytest.mark.parametrize("path", [CONFIGS / "grpo.yaml", CONFIGS / "quickstart" / "grounded.yaml"], ids=name)
def test_print_config(path, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["fit", f"--config={path}", "--print_config"])
    assert stopped.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"] is not None
