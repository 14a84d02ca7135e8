"""DDI: its skin types, its files, its diseases."""

from __future__ import annotations

import pytest

from dermiq.datamodules.sources.ddi import DDI
from dermiq.datamodules.sources.reading.card import terminology
from dermiq.schema import DataError, SkinType
from support.layouts import ddi


@pytest.fixture
def source(tmp_path):
    return ddi.write(tmp_path)


def test_two_skin_types_at_once(source):
    source.load()
    assert [sample.skin_type.value for sample in source] == ["V-VI", "V-VI", "III-IV", "I-II", "I-II", "III-IV"]
    assert source[0].skin_type == SkinType("fitzpatrick", "V-VI", "rated")


def test_photographs_beside_the_table_and_in_their_folder(source, tmp_path):
    source.load()
    assert source.missing() == []
    assert [sample.images[0] for sample in source][1:3] == [
        str(tmp_path / "000002.png"),
        str(tmp_path / "images" / "000003.png"),
    ]
    assert source[1].links == ("ddi:000002.png",)


def test_the_older_name_of_a_column_is_no_hindrance(source, tmp_path):
    table = tmp_path / "ddi_metadata.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace("malignant", "malignancy(malig=1)"))
    source.load()
    assert len(source) == 6


def test_diseases(source):
    card = source.card
    assert len(card.labels) == 78
    assert card.labels["squamous-cell-carcinoma-keratoacanthoma"].target == "keratoacanthoma"
    assert card.labels["melanoma-in-situ"].target == "melanoma"
    malignant = {label for label, meaning in card.labels.items() for concept in meaning.concepts[:1]
                 if terminology().malignant(concept)}  # fmt: skip
    assert {"mycosis-fungoides", "kaposi-sarcoma", "basal-cell-carcinoma-nodular"} < malignant
    assert not malignant & {"melanocytic-nevi", "actinic-keratosis", "dysplastic-nevus", "morphea"}


def test_a_disease_in_other_words_is_refused(source, tmp_path):
    table = tmp_path / "ddi_metadata.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace("blue-nevus", "blue nevus"))
    with pytest.raises(DataError, match=r"line 3: the label 'blue nevus' is unknown to DDI.*'blue-nevus'"):
        DDI(str(tmp_path)).load()
