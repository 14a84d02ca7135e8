"""CONTRIBUTING.md: its steps for a new data set, followed to the letter, and the shared suite on the outcome."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dermiq.cli import run
from dermiq.datamodules.sources.base import Source
from support.small_data import write_csv, write_jpeg
from support.source_compliance import *  # noqa: F403 (the suite, run here on the guide's adapter)

GUIDE = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTION = GUIDE.split("## Adding a data set")[1].split("\n## ")[0]
ROWS = [("NEV", "II"), ("NEV", "V"), ("SK", ""), ("SK", "IV"), ("BCC/SCC", "I"), ("BCC/SCC", "VI")] * 2


def block(language: str) -> str:
    """The one code block of a language in the section on data sets."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", SECTION, re.DOTALL)
    return found


@pytest.fixture(scope="module", autouse=True)
def adapter(tmp_path_factory):
    """The adapter and the card of the guide, importable."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "cards").mkdir()
    (folder / "skin_clinic.py").write_text(block("python"))
    (folder / "cards" / "skin_clinic.yaml").write_text(block("yaml"))
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))


def write_download(root: Path) -> Path:
    """The data set of the guide."""
    header, *_ = re.findall(r"root/records\.csv +(\S+)", SECTION)
    rows = [(f"{i:04d}", f"patient {i}", label, tone, "arm") for i, (label, tone) in enumerate(ROWS)]
    path = write_csv(root / "records.csv", header.split(";"), rows)
    path.write_text(path.read_text().replace(",", ";"))
    for i in range(len(ROWS)):
        write_jpeg(root / "photos" / f"{i:04d}.jpg", i)
    return root


@pytest.fixture
def fresh(tmp_path) -> Source:
    from skin_clinic import SkinClinic

    return SkinClinic(str(write_download(tmp_path / "data")))


def test_the_command_of_the_guide_trains_on_it(lab, tmp_path):
    root = write_download(tmp_path / "data")
    named = [option.replace("PATH/TO/skin_clinic", str(root)) for option in re.findall(r"--data\.\S+", SECTION)]
    cli = run([*lab.arguments("fit", "GRPOModule", tmp_path / "run", "--trainer.max_steps=1"), *named])
    assert len(named) == 2 and cli.trainer.global_step == 1
    assert type(cli.datamodule.splits["train"].source).__name__ == "SkinClinic"
