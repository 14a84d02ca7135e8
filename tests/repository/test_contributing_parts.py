"""CONTRIBUTING.md: its steps for a new reward, a new stage and a new condition, followed to the letter."""

from __future__ import annotations

import contextlib
import csv
import inspect
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from dermiq.cli import run
from dermiq.kg.__main__ import main
from dermiq.kg.ontology.tables import SOURCE

GUIDE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    """A section of the guide."""
    return GUIDE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(title: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", section(title), re.DOTALL)


def commands(title: str) -> list[list[str]]:
    """The command lines of a section, without ``python``."""
    return [shlex.split(line)[1:] for line in re.findall(r"^    (python .*)$", section(title), re.MULTILINE)]


@pytest.fixture(scope="module")
def part(tmp_path_factory):
    """The files of both guides in one folder that Python imports from."""
    folder = tmp_path_factory.mktemp("parts")
    for title, name in (("Adding a reward", "bare_name"), ("Adding a stage", "focal")):
        (folder / f"{name}.py").write_text(blocks(title, "python")[0])
        (folder / f"{name}.yaml").write_text(blocks(title, "yaml")[0])
    with contextlib.chdir(folder):
        sys.path.insert(0, str(folder))
        yield folder
        sys.path.remove(str(folder))


def guided_tests(title: str) -> dict:
    """The tests that the guide writes for its part."""
    names: dict = {}
    exec(blocks(title, "python")[1], names)
    return {name: test for name, test in names.items() if name.startswith("test_")}


def test_the_tests_of_the_reward_pass(part):
    tests = guided_tests("Adding a reward")
    for test in tests.values():
        test()
    assert len(tests) == 2


@pytest.mark.slow
def test_the_reward_is_trained_with(part, lab, tmp_path):
    [words] = commands("Adding a reward")
    given = [word for word in words if word.endswith("bare_name.yaml")]
    assert words[:2] == ["cli.py", "fit"] and given
    cli = run([*lab.arguments("fit", "GRPOModule", tmp_path / "run", "--trainer.max_steps=1"), "--config", *given])
    (table,) = (tmp_path / "run" / "metrics").rglob("metrics.csv")
    [row] = csv.DictReader(table.read_text().splitlines())
    assert cli.trainer.global_step == 1 and 0 <= float(row["train/reward/bare_name"]) <= 1


@pytest.mark.slow
def test_the_tests_of_the_stage_pass(part, lab, tmp_path):
    [test] = guided_tests("Adding a stage").values()
    assert list(inspect.signature(test).parameters) == ["lab", "tmp_path"]
    test(lab, tmp_path)


@pytest.mark.slow
def test_the_command_of_the_stage_runs_it(part, lab, tmp_path):
    """In the lab's small experiment, edited as the guide edits that of the repository."""
    assert commands("Adding a stage") == [["cli.py", "fit", "--config", "configs/focal.yaml"]]
    edited = yaml.safe_load(blocks("Adding a stage", "yaml")[0])["model"]
    config = yaml.safe_load(lab.config("SFTModule").read_text())
    config["model"] = edited | {"init_args": config["model"]["init_args"] | edited["init_args"]}
    (tmp_path / "focal.yaml").write_text(yaml.safe_dump(config))
    cli = run(
        ["fit", "--config", str(tmp_path / "focal.yaml"), "--trainer.max_steps=1",
         f"--trainer.default_root_dir={tmp_path / 'run'}"]
    )  # fmt: skip
    assert type(cli.model).__name__ == "FocalModule" and cli.model.gamma == 2 and cli.trainer.global_step == 1


@pytest.mark.slow
def test_the_condition_is_built_and_judged(tmp_path, capsys):
    source, owl = tmp_path / "source", tmp_path / "dermiq.owl"
    shutil.copytree(SOURCE, source)
    [name] = re.findall(r"`src/dermiq/kg/source/(conditions/\w+\.yaml)`", section("Adding a condition"))
    [table] = blocks("Adding a condition", "yaml")
    assert not (source / name).exists(), "the guide's condition is in the graph: take another example"
    (source / name).write_text(table)
    own = {"build": ["--source", source, "--out", owl], "validate": [owl]}
    printed = {}
    for _, module, command, *words in commands("Adding a condition"):
        assert module == "dermiq.kg"
        arguments = [command, *words, *map(str, own.get(command, ["--ontology", owl]))]
        assert main(arguments) == 0, capsys.readouterr()
        printed[command] = capsys.readouterr().out
    assert "0 errors, 0 warnings" in printed["validate"]
    assert yaml.safe_load(table)["definition"].split(",")[0] in " ".join(printed["describe"].split())
    assert "contradicted (1)" in printed["score"]
