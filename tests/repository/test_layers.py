"""The rules of the house are enforced: breaking one makes `make check`, or this file, fail."""

import ast
import os
import re
import shutil
import statistics
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
SOURCES = [
    REPOSITORY / "cli.py",
    *sorted((REPOSITORY / "src").rglob("*.py")),
    *sorted((REPOSITORY / "study").rglob("*.py")),
    *sorted((REPOSITORY / "benchmarks").rglob("*.py")),
]
MAX_FILE_LINES = 350
MAX_FUNCTION_LINES = 60
MAX_MEDIAN_LINES = 120  # of the package's files that are not empty
# Words in place of the field's terms (KL penalty, backward, resample, synthetic lesion), and the long form of options.
DIALECT = re.compile(
    r"\b(?:leash|hush|heed|pullback|(?<!/)redraw)\w*|\bdrawn lesion|--[\w.]+\.init_args\b", re.IGNORECASE
)

# (module, line added at its end, the contract that must be named as broken)
VIOLATIONS = [
    ("objectives/losses", "import lightning", "No Lightning below modules"),
    ("metrics/summary", "from lightning.pytorch import Trainer", "No Lightning below modules"),
    ("rewards", "import jsonargparse", "No Lightning below modules"),
    ("policy/prefix", "import dermiq.modules", "Layers"),
    ("policy/rollout", "import dermiq.objectives.losses", "Layers"),
    ("schema", "from dermiq.prompts import parse", "Layers"),
    ("datamodules", "import dermiq.modules", "Layers"),
    ("modules", "import dermiq.trainer", "Layers"),
    ("policy/caches", "import dermiq.policy.attention", "No circle"),
    ("kg/graph", "import dermiq.kg.scorer", "No circle"),
    ("kg/language/claims", "import dermiq.kg.verdicts", "No circle"),
    ("datamodules/sources/base", "import dermiq.datamodules.splits", "No circle"),
    ("prompts", "import torch", "No model library in schema, prompts, findings and kg"),
    ("findings", "import transformers", "No model library in schema, prompts, findings and kg"),
    ("kg", "import torch", "No model library in schema, prompts, findings and kg"),
    ("rewards", "import dermiq.kg", "Rewards, metrics and modules never import kg"),
    ("kg/linking", "import owlready2", "Only kg.ontology.owl knows owlready2"),
    ("modules", "import transformers", "Only policy, text_encoder and tiny know transformers"),
    ("datamodules/splits/file", "import transformers", "Only policy, text_encoder and tiny know transformers"),
    ("datamodules", "import peft", "Only backbone, adapter_files and adapters know peft and bitsandbytes"),
    ("tiny", "import peft", "Only backbone, adapter_files and adapters know peft and bitsandbytes"),
    ("policy/attention", "import bitsandbytes", "Only backbone, adapter_files and adapters know peft and bitsandbytes"),
]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the source tree with its configuration."""
    shutil.copytree(REPOSITORY / "src" / "dermiq", tmp_path / "src" / "dermiq", ignore=shutil.ignore_patterns("*.pyc"))
    shutil.copy(REPOSITORY / "pyproject.toml", tmp_path)
    return tmp_path


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Check the layers of `tree`, not of the installed package."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run()", "--no-cache"]
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)


def test_unbroken_tree_passes(copy: Path) -> None:
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("module", "line", "contract"), VIOLATIONS)
def test_a_broken_rule_is_found(copy: Path, module: str, line: str, contract: str) -> None:
    path = copy / "src" / "dermiq" / module
    with (path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).open("a") as source:
        source.write(f"\n{line}\n")
    result = lint_imports(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    broken = [name for name in result.stdout.splitlines() if " BROKEN" in name]
    assert any(contract in name for name in broken), result.stdout


def test_a_module_outside_the_layers_is_found(copy: Path) -> None:
    (copy / "src" / "dermiq" / "stray.py").touch()
    result = lint_imports(copy)
    assert result.returncode == 1
    assert "stray" in result.stdout


def test_a_new_module_of_a_package_needs_no_line(copy: Path) -> None:
    for package in ("policy", "kg/language", "datamodules/sources", "trainer/preflight"):
        (copy / "src" / "dermiq" / package / "newcomer.py").write_text("import dermiq.schema\n")
    result = lint_imports(copy)
    assert result.returncode == 0, result.stdout


def test_every_contract_is_broken_once() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        contracts = [each["name"] for each in tomllib.load(file)["tool"]["importlinter"]["contracts"]]
    assert all(any(contract in name for *_, contract in VIOLATIONS) for name in contracts), contracts


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_make_check_runs_the_layer_check() -> None:
    plan = subprocess.run(["make", "-n", "check"], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    for tool in ("ruff check", "ruff format --check", "mypy", "lint-imports"):
        assert tool in plan.stdout


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_files_and_functions_are_short(path: Path) -> None:
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= MAX_FILE_LINES, f"{path.name} has {lines} lines: split it"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{path.name}: {node.name} has {length} lines: split it"


def test_the_median_file_is_short() -> None:
    lengths = [path.read_text().count("\n") for path in (REPOSITORY / "src" / "dermiq").rglob("*.py")]
    assert statistics.median(filter(None, lengths)) <= MAX_MEDIAN_LINES


def test_words_and_options_are_those_of_the_field() -> None:
    texts = [*SOURCES, REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
    texts += [path for folder in ("src", "configs", "study") for path in (REPOSITORY / folder).rglob("*.yaml")]
    found = {str(path.relative_to(REPOSITORY)): words for path in texts if (words := DIALECT.findall(path.read_text()))}
    assert found == {}


@pytest.mark.parametrize(
    "text", ["without a leash", "Redraws of groups", "a drawn lesion", "--model.init_args.kl_coef=0"]
)
def test_other_words_are_found(text: str) -> None:
    assert DIALECT.search(text)


def test_no_catch_all_module() -> None:
    assert not [path for path in SOURCES if path.stem in ("utils", "helpers", "common", "misc")]
