"""SCIN: two tables joined, differentials read from text, three ways to tell the skin type."""

from __future__ import annotations

import logging

import pytest

from dermiq.datamodules.sources.scin import SCIN
from dermiq.schema import DataError
from support.layouts import scin


@pytest.fixture
def source(tmp_path):
    return scin.write(tmp_path)


def by_id(source: SCIN) -> dict[str, object]:
    source.load()
    return {sample.id: sample for sample in source}


def change(tmp_path, table: str, old: str, new: str) -> None:
    path = tmp_path / "dataset" / table
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_case(source, tmp_path):
    sample = by_id(source)["-3205742176803893704"]
    assert sample.label == "Eczema" and sample.target == "dermatitis"  # of equal ones the first
    assert sample.differential == pytest.approx({"dermatitis": 0.59, "inflicted skin lesions": 0.41})
    assert sample.site == "arm, back of hand"
    assert sample.images == tuple(str(tmp_path / "dataset" / "images" / f"{file}.png") for file in ("-11", "12", "13"))
    assert source.missing() == []


def test_cases_that_share_a_file_are_tied(source):
    cases = by_id(source)
    assert set(cases["-3205742176803893704"].links) & set(cases["-9"].links) == {"scin:-11"}


def test_cases_without_a_label_are_left_out_and_counted(source, caplog):
    with caplog.at_level(logging.INFO):
        cases = by_id(source)
    assert set(cases) == {"-3205742176803893704", "4711", "-9", "88"}
    assert "left out 2 cases without a condition; 1 of them could be graded" in caplog.text
    assert cases["88"].differential == {"acne vulgaris": 1.0}  # the other one was a note of the grader


@pytest.mark.parametrize(
    ("whose", "expected"),
    [
        ("donor", [("fitzpatrick", "III", "self-reported"), None, None, ("fitzpatrick", "V", "self-reported")]),
        ("dermatologist", [("fitzpatrick", "III", "rated"), ("fitzpatrick", "VI", "rated"), None,
                           ("fitzpatrick", "V", "rated")]),
        ("monk_us", [("monk", "3", "crowd"), ("monk", "9", "crowd"), None, ("monk", "6", "crowd")]),
        ("monk_india", [("monk", "4", "crowd"), ("monk", "10", "crowd"), None, ("monk", "7", "crowd")]),
    ],
)  # fmt: skip
def test_skin_types(source, tmp_path, whose, expected):
    cases = by_id(SCIN(str(tmp_path), skin_type=whose))
    found = [cases[case].skin_type for case in ("-3205742176803893704", "4711", "-9", "88")]
    assert [skin and (skin.scale, skin.value, skin.how) for skin in found] == expected


def test_tables_may_lie_in_the_root(source, tmp_path):
    for name in ("scin_cases.csv", "scin_labels.csv"):
        (tmp_path / "dataset" / name).rename(tmp_path / name)
    assert len(by_id(source)) == 4


def test_all_unknown_conditions_are_named_at_once(source, tmp_path):
    change(tmp_path, "scin_labels.csv", "Purpura", "Purpura of old age")
    change(tmp_path, "scin_labels.csv", "Eczema", "Exzema")
    with pytest.raises(DataError, match=r"2 condition\(s\).*'Exzema' \(.*line 7\); 'Purpura of old age' \(.*line 5\)"):
        source.load()


@pytest.mark.parametrize(
    "weights",
    ["{'Acne': '1'}", "{'Acne': -1.0}", "{'Acne': True}", "{'': 1.0}", "{'Acne'}", "['Acne']", "__import__('os')",
     "{'Acne': 1e999}", "{'Acne': 0.5"],
)  # fmt: skip
def test_a_differential_that_is_none_is_refused(source, tmp_path, weights):
    change(tmp_path, "scin_labels.csv", "{'SCC/SCCIS': 1.0}", weights)
    with pytest.raises(DataError, match="line 6: 'weighted_skin_condition_label' is"):
        source.load()


def test_a_number_that_a_spreadsheet_spoilt_is_refused(source, tmp_path):
    change(tmp_path, "scin_cases.csv", "-3205742176803893704", "-3.20574E+18")
    with pytest.raises(DataError, match=r"scin_cases.csv, line 2: the case_id '-3.20574E\+18'"):
        source.load()


def test_tables_that_do_not_fit_are_refused(source, tmp_path):
    change(tmp_path, "scin_cases.csv", "4711", "4712")
    with pytest.raises(DataError, match=r"line 6: scin_cases\.csv has no case 4711"):
        source.load()
    change(tmp_path, "scin_cases.csv", "4712", "-9")
    with pytest.raises(DataError, match=r"scin_cases\.csv, line 4: the case -9 stands there twice"):
        source.load()


def test_the_card_knows_the_published_conditions(source):
    assert len(source.card.labels) == 369
    assert (
        source.card.labels["Tinea"].target == "tinea corporis" and "tinea pedis" in source.card.labels["Tinea"].synonyms
    )
    assert not source.card.labels["O/E - petechiae present"].concepts
