"""derm7pt: views, parts, paths, and what the checklist says exactly."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from dermiq.datamodules.sources.derm7pt import Derm7pt
from dermiq.findings import VOCABULARY
from dermiq.schema import DataError
from support.layouts.derm7pt import SPLIT, write


def load(root: Path, **options) -> Derm7pt:
    source = Derm7pt(write(root).root.as_posix(), **options)
    source.load()
    return source


def names(source: Derm7pt, index: int) -> list[str]:
    return [Path(reference).name for reference in source[index].images]


def test_views(tmp_path):
    assert names(load(tmp_path), 0) == ["Nel026.jpg"]
    assert names(load(tmp_path, views=["clinic"]), 0) == ["NEL025.JPG"]
    both = load(tmp_path, views=["derm", "clinic"])
    assert names(both, 0) == ["Nel026.jpg", "NEL025.JPG"]
    assert names(both, 8) == ["Aal015.jpg"]  # the same photograph in both roles
    with pytest.raises(DataError, match="`views` of derm7pt is empty"):
        Derm7pt("anywhere", views=[])


def test_paths_match_whatever_their_case(tmp_path):
    source = load(tmp_path)
    assert names(source, 1) == ["NAL002.JPG"] and source.missing() == []


def test_parts_are_positions_of_rows(tmp_path, caplog):
    parts = {part: [sample.id for sample in load(tmp_path, part=part)] for part in SPLIT}
    assert parts["train"] == [str(position) for position in SPLIT["train"]]
    assert parts["valid"] == ["1", "5", "9"]  # 13 has no diagnosis
    with caplog.at_level(logging.INFO):
        whole = load(tmp_path)
    assert sorted(case for part in parts.values() for case in part) == sorted(sample.id for sample in whole)
    assert "1 of 18 cases have no diagnosis" in caplog.text


@pytest.mark.parametrize("position", ["18", "-1", "1.0", ""])
def test_positions_of_no_row_are_refused(position, tmp_path):
    source = Derm7pt(write(tmp_path).root.as_posix(), part="test")
    (source.root / "meta" / "test_indexes.csv").write_text(f"indexes\n3\n'{position}'\n")
    with pytest.raises(DataError, match=r"line 3: .* is the position of no row; meta\.csv has rows 0 to 17"):
        source.load()


def test_cases_that_share_a_photograph_are_tied(tmp_path):
    by_id = {sample.id: sample for sample in load(tmp_path)}
    assert set(by_id["14"].links) & set(by_id["15"].links) == {"derm7pt:a/9.jpg"}
    assert by_id["8"].links == ("derm7pt:aal/aal015.jpg",)


def test_findings_are_given_only_where_the_checklist_is_exact(tmp_path):
    findings = {sample.id: sample.findings for sample in load(tmp_path) if sample.findings_observed}
    assert findings == {
        "2": {"structure": ("network",)},
        "3": {"structure": ("network", "streaks", "vessels")},
        "6": {"structure": ("vessels",)},
        "9": {"structure": ("network",)},
        "11": {"structure": ("vessels",)},
        "14": {"structure": ("streaks",)},
    }  # not: no melanocytic lesion (0, 7, 8), dots or globules (4, 5), regression (10), pigmentation (15)
    assert {value for said in findings.values() for value in said["structure"]} <= set(VOCABULARY["structure"])
    assert not any(sample.findings_observed for sample in load(tmp_path, views=["clinic"]))
