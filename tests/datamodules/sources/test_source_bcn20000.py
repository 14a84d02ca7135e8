"""BCN20000: both exports, licences of single images."""

from __future__ import annotations

import logging

import pytest

from dermiq.schema import DataError
from support.layouts.bcn20000 import CLINIC, write, write_export


@pytest.mark.parametrize("new", [True, False])
def test_both_exports_mean_the_same(new, tmp_path, caplog):
    source = write_export(tmp_path, new)
    with caplog.at_level(logging.INFO):
        source.load()
    assert [sample.target for sample in source] == [
        "melanocytic nevus",
        "melanocytic nevus",
        "melanoma",
        "melanoma",
        "basal cell carcinoma",
        "squamous cell carcinoma",
        "actinic keratosis",
        "seborrheic keratosis",
        "solar lentigo",
        "dermatofibroma",
        "scar",
        "vascular lesion",
    ]
    assert "1 of 13 images have no diagnosis" in caplog.text


def test_vascular_lesions_are_named_by_the_second_level(tmp_path):
    source = write(tmp_path)
    source.load()
    assert source[11].label == "Benign soft tissue proliferations - Vascular"


def test_the_latest_export_counts(tmp_path):
    write_export(tmp_path, new=False)
    source = write(tmp_path)
    source.load()
    assert source[0].label == "Nevus"


def test_licence_and_attribution_are_those_of_the_image(tmp_path):
    source = write(tmp_path)
    source.load()
    assert {sample.licence for sample in source} == {"CC-BY-NC", "CC-BY"} and source[4].licence == "CC-BY"
    assert {sample.attribution for sample in source} == {CLINIC}


def test_the_group_is_the_lesion_or_else_the_image(tmp_path):
    source = write(tmp_path)
    source.load()
    assert source[0].group == source[1].group == "bcn20000:IL_0000001"
    assert source[2].group == "bcn20000:ISIC_0053455" and source[2].links == ("isic:ISIC_0053455",)


def test_without_metadata_or_diagnoses(tmp_path):
    source = write(tmp_path)
    (path,) = tmp_path.glob("bcn20000_metadata_*.csv")
    path.write_text(path.read_text().replace("diagnosis_", "level_"))
    with pytest.raises(DataError, match="there is none of the columns diagnosis_3, diagnosis_2, diagnosis"):
        source.load()
    path.unlink()
    with pytest.raises(DataError, match=r"there is no bcn20000_metadata_\*\.csv"):
        source.load()
