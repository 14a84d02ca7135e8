"""Fitzpatrick17k: its published table, its columns of skin types, its quality control, its file names."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from dermiq.datamodules.sources.fitzpatrick17k import WRONG, Fitzpatrick17k
from dermiq.datamodules.sources.reading.csv_rows import read_table
from dermiq.schema import DataError
from support.layouts import fitzpatrick17k


@pytest.fixture
def root(tmp_path):
    fitzpatrick17k.write(tmp_path)
    return tmp_path


def loaded(root, **options) -> Fitzpatrick17k:
    source = Fitzpatrick17k(str(root), **options)
    source.load()
    return source


def test_photographs_are_found_by_hash_and_by_url(root):
    source = loaded(root)
    assert [len(source), source.missing()] == [6, [4]]
    assert source[4].images == (str(root / "images" / f"{fitzpatrick17k.hash_of(5)}.jpg"),)
    assert source[2].images[0].endswith("m2.jpg") and source[0].images[0].endswith(f"{source[0].id}.jpg")


def test_photographs_may_lie_beside_the_table(root):
    (root / "images").rename(root / "finalfitz17k")
    assert loaded(root).missing() == [4]


def test_the_two_columns_of_skin_types(root):
    values = [
        [sample.skin_type and sample.skin_type.value for sample in loaded(root, scale=scale)]
        for scale in ("fitzpatrick_scale", "fitzpatrick_centaur")
    ]
    assert values == [["III", None, "V", "I", "VI", "IV"], ["III", "II", None, "I", "VI", "IV"]]


def test_wrongly_labelled_rows_are_left_out_and_counted(root, caplog):
    with caplog.at_level(logging.INFO):
        left = {sample.id for sample in loaded(root)}
    assert f"left out 1 rows with qc '{WRONG}'" in caplog.text
    assert {sample.id for sample in loaded(root, wrongly_labelled=True)} - left == {fitzpatrick17k.hash_of(3)}


def test_links_tie_a_photograph_to_its_copies(root):
    sample = loaded(root)[0]
    assert sample.links == (f"fitzpatrick17k:{sample.id}", f"md5:{sample.id}")


def test_another_skin_type_is_refused(root):
    table = root / "fitzpatrick17k.csv"
    table.write_text(table.read_text().replace(",-1,2,", ",7,2,"))
    with pytest.raises(DataError, match=r"fitzpatrick17k.csv, line 3: the skin type '7'"):
        loaded(root)


@pytest.mark.slow  # some 5 s
def test_the_published_table(data_root):
    table = data_root / "fitzpatrick17k" / "fitzpatrick17k.csv"
    rows = read_table(table, ("label",), "")
    source = loaded(table.parent, wrongly_labelled=True)
    samples = list(source)
    counts = Counter(sample.label for sample in samples)
    assert len(samples) == len(rows) == source.card.images == 16_577
    assert counts == {label: meaning.count for label, meaning in source.card.labels.items()} and len(counts) == 114
    assert Counter(row["three_partition_label"] for row in rows) == {
        "non-neoplastic": 12_080,
        "malignant": 2_263,
        "benign": 2_234,
    }
    assert [sum(not row[column] for row in rows) for column in ("url", "qc")] == [41, 16_577 - 504]
    assert len(source.missing()) == len(source)  # photographs are not published with it
    assert sum(sample.skin_type is None for sample in samples) == 565
    centaur = Fitzpatrick17k(str(table.parent), scale="fitzpatrick_centaur", wrongly_labelled=True).records()
    assert sum(record.skin_type is None for record in centaur) == 1_073
    assert len(loaded(table.parent)) == 16_577 - 17
