"""ISIC 2020: patients, duplicates, images without a diagnosis."""

from __future__ import annotations

import logging

from support.layouts.isic2020 import write


def test_undiagnosed_images_are_left_out_and_counted(tmp_path, caplog):
    source = write(tmp_path)
    with caplog.at_level(logging.INFO):
        source.load()
    assert len(source) == 10 and "unknown" not in {sample.label for sample in source}
    assert "2 of 12 images have no diagnosis" in caplog.text


def test_the_group_is_the_patient(tmp_path):
    source = write(tmp_path)
    source.load()
    assert source[0].group == source[1].group == "isic2020:IP_0962375"
    assert source[0].links == ("isic:ISIC_0149568", "isic-lesion:IL_0000001")


def test_the_official_list_of_duplicates_ties_images(tmp_path):
    source = write(tmp_path)
    source.load()
    one, other = source[2], source[3]
    assert one.group != other.group
    assert set(one.links) & set(other.links) == {"isic:ISIC_0188432", "isic:ISIC_0188433"}


def test_the_list_of_duplicates_need_not_be_there(tmp_path):
    source = write(tmp_path)
    (tmp_path / "ISIC_2020_Training_Duplicates.csv").unlink()
    source.load()
    assert source[2].links == ("isic:ISIC_0188432",)


def test_conditions_that_the_ontology_lacks(tmp_path):
    source = write(tmp_path)
    source.load()
    by_label = {sample.label: sample for sample in source}
    lentigo = by_label["lentigo NOS"]
    assert (lentigo.target, lentigo.synonyms, lentigo.concepts) == ("lentigo", (), ("solar_lentigo",))
    assert by_label["cafe-au-lait macule"].target == "cafe au lait macule"
    assert by_label["atypical melanocytic proliferation"].concepts == ()
