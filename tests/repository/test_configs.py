"""Every configuration that is a whole experiment can be instantiated, without weights and without data."""

import io
import shlex
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.trainer.states import TrainerFn

import dermiq.cli
from dermiq import datamodules, modules
from dermiq.cli import SaveFitConfig, main
from dermiq.datamodules import DermDataModule, sources
from dermiq.modules import GRPOModule, StageModule

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "configs"
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


def launch(path):
    """The arguments of the line in a configuration's header that launches it."""
    lines = (line for line in path.read_text().splitlines() if line.startswith("#") and f"configs/{name(path)}" in line)
    return shlex.split(next(lines).partition("cli.py ")[2])


@pytest.mark.parametrize("path", PARTS, ids=name)
def test_a_part_fits_on_the_experiment_of_its_header(path, monkeypatch, tmp_path):
    monkeypatch.chdir(REPOSITORY)
    options = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    cli = instantiated(monkeypatch, [*launch(path), *options])
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


def resolved(path, *options):
    """What `fit` would run with, as text."""
    with redirect_stdout(io.StringIO()) as shown, pytest.raises(SystemExit):
        dermiq.cli.run(["fit", f"--config={path}", *options, "--print_config"])
    return shown.getvalue()


def inlined(path, found):
    """A file's content with that of the files which it names, noted in `found`, in their places."""

    def whole(value):
        if isinstance(value, dict):
            return {key: whole(each) for key, each in value.items()}
        if isinstance(value, list):
            return [whole(each) for each in value]
        if str(value).endswith(".yaml"):
            found.append(path.parent / value)
            return inlined(path.parent / value, found)
        return value

    return whole(content(path))


@pytest.mark.parametrize("path", EXPERIMENTS, ids=name)
def test_a_file_stands_for_its_content(path, tmp_path):
    found = []
    (tmp_path / "whole.yaml").write_text(yaml.safe_dump(inlined(path, found), sort_keys=False))
    assert found or name(path) in ("pairs.yaml", "fairness/skin_tones.yaml")  # whose rewards are their own
    assert resolved(path) == resolved(tmp_path / "whole.yaml")


def test_the_saved_configuration_needs_no_other_file(monkeypatch, tmp_path):
    options = ["--trainer.accelerator=cpu", f"--trainer.default_root_dir={tmp_path}"]
    cli = instantiated(monkeypatch, ["fit", f"--config={CONFIGS / 'grpo.yaml'}", *options])
    [saver] = [callback for callback in cli.trainer.callbacks if isinstance(callback, SaveFitConfig)]
    saver.save_config(cli.trainer, cli.model, "fit")
    assert resolved(tmp_path / "config.yaml") == resolved(CONFIGS / "grpo.yaml", *options)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_class_without_a_path_is_one_that_the_command_line_imports(path):
    """A short name is looked for among the classes imported so far, which here are also those of other tests."""
    values = (line.partition("class_path: ")[2] for line in path.read_text().splitlines())
    names = {value.split(",")[0].strip(" }") for value in values if value}
    short = {each for each in names if "." not in each}
    assert all(any(hasattr(place, each) for place in (modules, datamodules, sources)) for each in short)
