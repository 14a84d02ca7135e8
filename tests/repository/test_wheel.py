"""What `pip wheel .` packs is all that the programs need."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel's contents, built from a copy that lacks whatever else lies in the working tree."""
    root = tmp_path_factory.mktemp("wheel")
    for name in ("src", "configs", "study", "benchmarks"):
        shutil.copytree(
            REPOSITORY / name, root / name, symlinks=True, ignore=shutil.ignore_patterns("*.egg-info", "__pycache__")
        )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, root)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    subprocess.run([*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", root / "dist", root], check=True)
    (wheel,) = (root / "dist").glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", root / "site", wheel], check=True)
    return root / "site"


def run(installed: Path, folder: Path, module: str, *arguments: str) -> str:
    """The output of a module's `main`, run from another folder; what it imports as `dermiq` is the wheel's."""
    code = f"import sys, dermiq; assert dermiq.__file__.startswith(sys.argv.pop(1)); from {module} import main; main()"
    finished = subprocess.run(
        [sys.executable, "-c", code, installed, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_the_ontology_is_inside(installed, tmp_path):
    assert "melanoma" in run(installed, tmp_path, "dermiq.kg.__main__", "describe", "melanoma")


def test_configurations_are_inside(installed, tmp_path):
    config = f"--config={installed}/dermiq/configs/quickstart/grpo.yaml"
    printed = run(installed, tmp_path, "dermiq.cli", "fit", config, "--print_config")
    assert "dermiq.modules.GRPOModule" in printed
    assert "dermiq.trainer.callbacks.WritePredictions" in printed  # of base.yaml, which no option named


def test_research_stays_outside(installed):
    packed = {path.name for path in installed.rglob("*")}
    assert not packed & {"study", "study.yaml", "benchmarks"} and {"dermiq", "grpo.yaml"} <= packed


def test_the_tiny_model_is_inside(installed, tmp_path):
    code = "from dermiq.tiny import write_tiny_vlm; from pathlib import Path; write_tiny_vlm(Path('tiny'))"
    env = {**os.environ, "PYTHONPATH": str(installed)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, check=True)
    assert (tmp_path / "tiny" / "model.safetensors").is_file()
