"""SkinCon: findings as truth, on the photographs of another data set."""

from __future__ import annotations

import logging

import pytest

from dermiq.datamodules.sources.skincon import FINDINGS, FLAG, SkinCon
from dermiq.findings import VOCABULARY
from dermiq.schema import DataError
from support.layouts import ddi, fitzpatrick17k, skincon


def test_findings_are_those_of_the_annotations(tmp_path):
    source = skincon.write(tmp_path)
    source.load()
    assert [(sample.findings, sample.findings_observed) for sample in source][:3] == [
        ({"morphology": ("plaque",), "surface": ("scaly",), "colour": ("red",)}, True),
        ({"morphology": ("patch", "papule"), "colour": ("red", "purple")}, True),
        ({"morphology": ("nodule",), "colour": ("black",)}, True),
    ]
    assert source[3].findings == {"surface": ("ulcerated",)} and source[3].label == "neutrophilic dermatoses"
    assert not source[4].findings_observed  # telangiectasia and scar: the vocabulary means something else by them


def test_columns_mean_words_of_the_vocabulary():
    assert set(FINDINGS) < set(skincon.CONCEPTS) and len(skincon.CONCEPTS) == 48
    assert all(value in VOCABULARY[attribute] for attribute, value in FINDINGS.values())
    assert len(set(FINDINGS.values())) == len(FINDINGS)


def test_samples_are_tied_to_the_data_set_that_is_annotated(tmp_path):
    source = skincon.write(tmp_path)
    source.load()
    source.base.load()
    base = {sample.id: sample for sample in source.base}
    for sample in source:
        original = base[sample.id.removeprefix("skincon-")]
        assert (sample.target, sample.images, sample.links) == (original.target, original.images, original.links)
        assert sample.skin_type == original.skin_type and sample.licence == original.licence
        assert original.attribution in sample.attribution and "SkinCon" in sample.attribution
        assert sample.group != original.group and sample.dataset == "skincon"


def test_what_is_left_out_is_counted(tmp_path, caplog):
    source = skincon.write(tmp_path)
    with caplog.at_level(logging.INFO):
        source.load()
    assert len(source) == 5
    assert f"left out 1 photographs with '{FLAG}', and 1 that Fitzpatrick17k leaves out" in caplog.text
    kept = SkinCon(str(source.annotations), fitzpatrick17k.Fitzpatrick17k(str(source.root), wrongly_labelled=True))
    kept.load()
    assert len(kept) == 6


def test_on_ddi(tmp_path):
    base = ddi.write(tmp_path)
    table = skincon.write_annotations(tmp_path / "annotations_ddi.csv", ["000002.png"], [("Papule", "Blue")])
    source = SkinCon(str(table), base)
    source.load()
    assert (source[0].target, source[0].links) == ("blue nevus", ("ddi:000002.png",))
    assert "Stanford" in source[0].licence and source.missing() == []


def test_annotations_of_another_data_set_are_refused(tmp_path):
    base = ddi.write(tmp_path)
    table = skincon.write_annotations(tmp_path / "annotations.csv", [f"{'0' * 32}.jpg"], [("Papule",)])
    with pytest.raises(DataError, match=r"line 2: DDI has no photograph '0{32}\.jpg'"):
        SkinCon(str(table), base).load()


def test_a_finding_is_there_or_not(tmp_path):
    base = ddi.write(tmp_path)
    table = skincon.write_annotations(tmp_path / "annotations.csv", ["000002.png"], [("Papule",)])
    table.write_text(table.read_text().replace(",1,", ",2,"))
    with pytest.raises(DataError, match="'Papule' is '2' in place of 0 or 1"):
        SkinCon(str(table), base).load()
