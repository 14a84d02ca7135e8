"""SkinCAP: captions become reasoning that does not state the diagnosis."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dermiq.datamodules.sources import ddi, fitzpatrick17k
from dermiq.datamodules.sources.reading.card import Meaning
from dermiq.datamodules.sources.skincap import FLAG, description
from dermiq.prompts import accepted_names, gold_completion, normalise
from dermiq.schema import DataError
from support.layouts import skincap


@pytest.fixture
def source(tmp_path):
    return skincap.write(tmp_path)


def test_reasoning_is_the_description(source):
    source.load()
    assert [sample.reasoning for sample in source] == [
        "Well-defined red plaques with silvery-white scale on both knees.",
        "The trunk shows ring-shaped pink plaques with a trailing scale.",
        None,
        "A brown, warty plaque with a greasy surface on the back.",
        "A black patch on the sole with an irregular edge.",
    ]
    for sample in source:
        said = normalise(sample.reasoning or "")
        assert not [name for name in accepted_names(sample) if f" {name} " in f" {said} "]
        assert sample.reasoning is None or sample.reasoning in gold_completion(sample)


@pytest.mark.parametrize(
    ("caption", "left"),
    [
        ("Red papules on the face. It is acne vulgaris.", "Red papules on the face."),
        ("Red papules on both cheeks and the chin, and it may be rosacea", "Red papules on both cheeks and the chin."),
        ("A considerable number of small red papules on the chin; treatment is needed.",
         "A considerable number of small red papules on the chin."),
        ("A red, 2.5 cm wide plaque on the arm - eczema? Topical steroids.", None),
        ("The picture does not allow for an accurate diagnosis.", None),
        ("Acne vulgaris on the face with comedones and red papules.", None),
        ("Hyphenated Stevens-Johnson syndromes. Red skin on the whole trunk.", None),
        ("", None),
    ],
)  # fmt: skip
def test_descriptions(caption, left):
    assert description(caption, Meaning("acne vulgaris", ())) == left


def test_a_name_that_only_the_card_knows_is_cut_too():
    caption = "Two grey, firm swellings beside the nose, lymphocytic-infiltrates of long standing."
    assert description(caption, Meaning("lymphocytic infiltrate", ())) == "Two grey, firm swellings beside the nose."


def test_flagged_rows_are_left_out_and_counted(source, caplog):
    with caplog.at_level(logging.INFO):
        source.load()
    assert len(source) == 5 and f"left out 1 rows with '{FLAG}'" in caplog.text


def test_photographs_are_tied_to_their_data_sets(source):
    source.load()
    assert [sample.links for sample in source][2:4] == [
        (f"fitzpatrick17k:{skincap.hash_of(2)}", f"md5:{skincap.hash_of(2)}"),
        ("ddi:000004.png",),
    ]
    assert [sample.skin_type and sample.skin_type.value for sample in source] == ["III", None, "V", "I-II", "V-VI"]


def test_a_photograph_of_unknown_origin_is_refused(source, tmp_path):
    table = tmp_path / "skincap_v240623.csv"
    table.write_text(table.read_text().replace("000004.png", "mine.png"))
    with pytest.raises(DataError, match=r"line 5: 'ori_file_path' is 'mine\.png'"):
        source.load()


def test_labels_are_those_of_both_data_sets(source):
    cards = [fitzpatrick17k.Fitzpatrick17k(""), ddi.DDI("")]
    one, other = (data_set.card.labels for data_set in cards)
    assert set(source.card.labels) == {*one, *other} and len(source.card.labels) == 187
    assert all(one[label].target == other[label].target for label in one.keys() & other.keys())
    assert {meaning.count for meaning in source.card.labels.values()} == {None}
    assert Path(source.root).is_dir() and "non-commercial" in source.card.licence
