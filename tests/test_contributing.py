"""CONTRIBUTING.md: its steps for a new data set, followed to the letter."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from dermiq.cli import run
from small_data import write_csv, write_jpeg
from test_source_compliance import check

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
ROWS = [("NEV", "II"), ("NEV", "V"), ("SK", ""), ("SK", "IV"), ("BCC/SCC", "I"), ("BCC/SCC", "VI")]


def block(language: str) -> str:
    """The one code block of a language in the section on data sets."""
    section = GUIDE.read_text(encoding="utf-8").split("## Adding a data set")[1].split("\n## ")[0]
    (found,) = re.findall(rf"```{language}\n(.*?)```", section, re.DOTALL)
    return found


@pytest.fixture(scope="module")
def skin_clinic(tmp_path_factory):
    """The adapter and the card of the guide, importable, and a data set for them."""
    folder = tmp_path_factory.mktemp("guide")
    (folder / "cards").mkdir()
    (folder / "skin_clinic.py").write_text(block("python"))
    (folder / "cards" / "skin_clinic.yaml").write_text(block("yaml"))
    root = folder / "download"
    rows = [(f"{i:04d}", f"patient {i}", label, tone, "arm") for i, (label, tone) in enumerate(ROWS)]
    write_csv(root / "records.csv", ["photo", "patient", "diagnosis", "phototype", "place"], rows)
    for i in range(len(ROWS)):
        write_jpeg(root / "photos" / f"{i:04d}.jpg", i)
    sys.path.insert(0, str(folder))
    yield root
    sys.path.remove(str(folder))


def test_the_adapter_of_the_guide_passes_the_shared_suite(skin_clinic):
    from skin_clinic import SkinClinic

    check(lambda: SkinClinic(str(skin_clinic)))


def test_the_command_of_the_guide_trains_on_it(skin_clinic, lab, tmp_path):
    arguments = lab.arguments("fit", "GRPOModule", tmp_path, "--trainer.max_steps=1")
    command = re.findall(r"--data\.\S+", GUIDE.read_text(encoding="utf-8").split("**3. Use it.**")[1])
    named = [option.replace("PATH/TO/skin_clinic", str(skin_clinic)) for option in command]
    assert len(named) == 2
    cli = run([*arguments, *named])
    assert cli.trainer.global_step == 1 and len(cli.datamodule.splits["train"].source) == len(ROWS)
