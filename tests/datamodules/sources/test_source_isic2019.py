"""ISIC 2019: one-hot truth, lesions, the test part."""

from __future__ import annotations

import logging

import pytest

from dermiq.datamodules.sources.isic2019 import ISIC2019
from dermiq.schema import DataError
from support.layouts.isic2019 import write


def test_truth_and_metadata_are_joined_by_image(tmp_path):
    source = write(tmp_path)
    source.load()
    samples = {sample.id: sample for sample in source}
    assert [sample.label for sample in source] == "NV MEL NV NV BKL SCC BCC AK DF VASC".split()
    assert samples["ISIC_0024306"].site == "" and samples["ISIC_0053459"].site == "palms/soles"
    assert "bowen's disease" in samples["ISIC_0053453"].synonyms
    assert samples["ISIC_0024308"].concepts[0] == "benign_keratosis"


def test_the_group_is_the_lesion_or_else_the_image(tmp_path):
    source = write(tmp_path)
    source.load()
    groups = {sample.id: sample.group for sample in source}
    assert groups["ISIC_0000000"] == "isic2019:ISIC_0000000"
    assert groups["ISIC_0024307"] == groups["ISIC_0024308"] == "isic2019:HAM_0003577"
    assert source[3].links == ("isic:ISIC_0024307", "isic-lesion:HAM_0003577")
    assert source[0].links == ("isic:ISIC_0000000",)


def test_downsampled_images_are_tied_to_their_originals(tmp_path):
    source = write(tmp_path)
    source.load()
    assert source[1].id == "ISIC_0000004_downsampled" and "isic:ISIC_0000004" in source[1].links


def test_undiagnosed_test_images_are_left_out_and_counted(tmp_path, caplog):
    write(tmp_path)
    source = ISIC2019(str(tmp_path), part="test")
    with caplog.at_level(logging.INFO):
        source.load()
    assert [(sample.id, sample.label) for sample in source] == [("ISIC_0034322", "MEL"), ("ISIC_0034323", "NV")]
    assert source[0].group == "isic2019:ISIC_0034322" and source.missing() == []
    assert "1 of 3 images have no diagnosis" in caplog.text


@pytest.mark.parametrize("row", [",1.0,1.0" + ",0.0" * 7, ",0.0" * 9, ",x" * 9])
def test_truth_that_is_not_one_hot_is_refused(row, tmp_path):
    source = write(tmp_path)
    path = tmp_path / "ISIC_2019_Training_GroundTruth.csv"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], f"ISIC_0000000{row}", *lines[2:]]))
    with pytest.raises(DataError, match=r"line 2: one of MEL, NV, .* must be 1 and the others 0"):
        source.load()


def test_images_without_metadata_are_refused(tmp_path):
    source = write(tmp_path)
    path = tmp_path / "ISIC_2019_Training_Metadata.csv"
    path.write_text(path.read_text().replace("ISIC_0053470", "ISIC_9999999"))
    with pytest.raises(DataError, match="line 11: the metadata have no row of the image 'ISIC_0053470'"):
        source.load()


def test_an_archive_unpacked_into_a_folder_of_its_own_name(tmp_path):
    source = write(tmp_path)
    folder = tmp_path / "ISIC_2019_Training_Input"
    folder.rename(tmp_path / "inner")
    folder.mkdir()
    (tmp_path / "inner").rename(folder / folder.name)
    source.load()
    assert source.missing() == []
