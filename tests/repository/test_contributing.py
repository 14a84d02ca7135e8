"""CONTRIBUTING.md: its steps for a new data set, followed to the letter, and the shared suite on the outcome."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from datamodules.sources.test_source_compliance import (  # noqa: F401 (run here on the guide's adapter)
    source,
    test_constructing_reads_nothing,
    test_headers_name_source_licence_and_citation,
    test_images_open_as_rgb,
    test_labels_are_those_of_the_card_and_no_others,
    test_loading_opens_no_image_and_items_open_no_file,
    test_missing_images_are_reported_and_not_dropped,
    test_samples_say_what_they_are_and_on_what_terms,
    test_the_gold_completion_earns_the_full_reward,
    test_the_model_is_told_nothing_that_gives_the_answer_away,
    test_two_loads_agree_and_ids_are_unique,
    test_what_belongs_together_is_tied,
)
from dermiq.cli import run
from dermiq.datamodules.sources.base import Source
from support.small_data import write_csv, write_jpeg

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
