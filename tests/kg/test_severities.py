"""How much harm each kind of mistake counts for: the table of docs/knowledge_graph.md, row by row."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from dermiq.kg import KGScorer
from support.kg import small_scorer

DOCUMENT = (Path(__file__).parents[2] / "docs" / "knowledge_graph.md").read_text(encoding="utf-8")
TABLE = DOCUMENT.split("| severity")[1].split("\n\n")[0]
SEVERITIES = {row: float(number) for row, number in re.findall(r"^\| (.+?) \| ([\d.]+) \|$", TABLE, re.MULTILINE)}
MISTAKES = [  # (row, answer, condition)
    ("malignancy made less than it is", "Melanoma is benign.", "melanoma"),
    ("malignancy made less than it is", "The diagnosis is psoriasis.", "melanoma"),
    ("a treatment that is contraindicated", "Psoriasis is treated with oral corticosteroids.", "psoriasis"),
    ("another wrong diagnosis", "The diagnosis is scabies.", "psoriasis"),
    ("first-line treatment", "Scabies is treated first with emollients.", "scabies"),
    ("other wrong claims of malignancy", "Psoriasis is malignant.", "psoriasis"),
    ("other wrong claims of malignancy", "Psoriasis is contagious.", "psoriasis"),
    ("urgency: for each step too low", "Melanoma calls for a routine appointment.", "melanoma"),
    ("agent", "Scabies is caused by Staphylococcus aureus.", "scabies"),
    ("anything else, and urgency too high", "Psoriasis is blue.", "psoriasis"),
    ("anything else, and urgency too high", "Psoriasis calls for emergency care.", "psoriasis"),
]


@pytest.fixture(scope="module")
def scorer(tmp_path_factory: pytest.TempPathFactory) -> KGScorer:
    return small_scorer(tmp_path_factory.mktemp("kg"))


def test_every_row_has_its_mistake():
    assert all(any(row.startswith(start) for start, *_ in MISTAKES) for row in SEVERITIES)


@pytest.mark.parametrize(("row", "answer", "condition"), MISTAKES)
def test_a_mistake_is_as_severe_as_documented(row, answer, condition, scorer):
    [severity] = [number for name, number in SEVERITIES.items() if name.startswith(row)]
    score = scorer.score(answer, condition)
    assert [item.severity for item in score.contradicted] == [severity]
    assert score.harm == pytest.approx(severity)
