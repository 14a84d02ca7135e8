"""PAD-UFES-20: skin types, patients, nested folders."""

from __future__ import annotations

import pytest

from dermiq.schema import DataError, SkinType
from support.layouts.pad_ufes_20 import write


def test_skin_types(tmp_path):
    source = write(tmp_path)
    source.load()
    types = [sample.skin_type.value if sample.skin_type else None for sample in source]
    assert types == [None, "III", "III", "III", "I", "VI", "II"]
    assert source[1].skin_type == SkinType("fitzpatrick", "III", "rated")


@pytest.mark.parametrize(("value", "ok"), [("UNK", True), ("2", True), ("7.0", False), ("dark", False)])
def test_other_skin_types(value, ok, tmp_path):
    source = write(tmp_path)
    path = tmp_path / "metadata.csv"
    path.write_text(path.read_text().replace(",1.0,NECK", f",{value},NECK"))
    if ok:
        source.load()
        assert source[4].skin_type == (None if value == "UNK" else SkinType("fitzpatrick", "II", "rated"))
    else:
        with pytest.raises(DataError, match=f"line 6: the skin type '{value}' is not 1 to 6"):
            source.load()


def test_the_group_is_the_patient(tmp_path):
    source = write(tmp_path)
    source.load()
    assert source[1].group == source[2].group == source[3].group == "pad_ufes_20:PAT_771"
    assert source[1].links == source[2].links != source[3].links
    assert (source[1].id, source[1].site) == ("PAT_771_1491_390", "FACE")


def test_images_stand_in_any_of_the_folders(tmp_path):
    source = write(tmp_path)
    source.load()
    assert source.missing() == []
    assert source[4].images == (str(tmp_path / "images/imgs_part_3/imgs_part_3/PAT_46_881_939.png"),)


def test_squamous_cell_carcinoma_may_be_bowen_disease(tmp_path):
    source = write(tmp_path)
    source.load()
    assert source[4].concepts == ("squamous_cell_carcinoma", "bowen_disease")
