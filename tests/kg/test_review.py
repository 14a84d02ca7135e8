"""Review sheets: what a clinician marks becomes precision and recall with intervals."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from dermiq.kg.review import FIELDS, read_sheet
from dermiq.schema import KnowledgeError
from support.kg import exit_code

ANSWERS = [
    ("scabies", "Scabies is caused by a mite. It is not contagious.\nPlease ask me more."),
    ("melanoma", "=1+1 Melanoma is malignant."),
]


@pytest.fixture
def sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    answers, out = tmp_path / "answers.jsonl", tmp_path / "sheet.csv"
    rows = [{"condition": condition, "answer": answer} for condition, answer in ANSWERS]
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert exit_code("review", "--input", answers, "--out", out) == 0
    assert f"Wrote {out}: 4 rows." in capsys.readouterr().out
    return out


def marked(sheet: Path, *marks: str) -> Path:
    rows = read(sheet)
    with sheet.open("w", encoding="utf-8-sig", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows(row | {"mark": mark} for row, mark in zip(rows, marks, strict=True))
    return sheet


def read(sheet: Path) -> list[dict[str, str]]:
    with sheet.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_row_for_each_claim_and_each_sentence_without_one(sheet: Path) -> None:
    rows = read(sheet)
    assert [row["verdict"] for row in rows] == ["supported", "contradicted", "none", "supported"]
    assert rows[0]["claim"] == "scabies is caused by a mite" and "Sarcoptes" in rows[0]["evidence"]
    assert rows[2]["sentence"] == "Please ask me more." and rows[2]["claim"] == ""
    assert [row["mark"] for row in rows] == [""] * 4


def test_no_cell_is_a_formula(sheet: Path) -> None:
    assert read(sheet)[3]["sentence"].startswith("'=1+1")


def test_marks_become_rates_with_intervals(sheet: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = marked(sheet, "supported", "Contradicted ", "contradicted", "not said")
    agreement = read_sheet(path)
    assert (agreement.marked, agreement.unmarked) == (4, 0)
    assert (agreement.precision["supported"].hits, agreement.precision["supported"].total) == (1, 2)
    assert (agreement.recall["contradicted"].hits, agreement.recall["contradicted"].total) == (1, 2)
    low, high = agreement.recall["contradicted"].interval
    assert low == pytest.approx(0.0945, abs=1e-3) and high == pytest.approx(0.9055, abs=1e-3)  # Wilson, 1 of 2
    assert exit_code("review", "--marked", path) == 0
    said = capsys.readouterr().out
    assert "contradicted  precision 1.00 [0.21, 1.00] of 1; recall 0.50 [0.09, 0.91] of 2" in said
    assert "neutral       precision no rows; recall no rows" in said


def test_what_is_no_marked_sheet_is_refused(sheet: Path, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="holds no mark"):
        read_sheet(sheet)
    with pytest.raises(KnowledgeError, match=r"line 3: the mark 'yes' is none of supported, contradicted"):
        read_sheet(marked(sheet, "", "yes", "", ""))
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(KnowledgeError, match="lacks the columns mark, verdict"):
        read_sheet(tmp_path / "other.csv")
    with pytest.raises(KnowledgeError, match="cannot be read"):
        read_sheet(tmp_path / "none.csv")
    assert exit_code("review", "--out", tmp_path / "x.csv") == 2
