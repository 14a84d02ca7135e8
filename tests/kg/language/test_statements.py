"""Statements as people and models write them: the judge's figures on prose that its rules were tuned on."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

from dermiq.kg import KGScorer

ROOT = Path(__file__).parents[3]
OURS = sorted((ROOT / "benchmarks" / "kg" / "statements").glob("tuning*.jsonl"))
SHARED = Path(os.environ.get("DERMIQ_TEST_DATA", ROOT.parent / "shared" / "data")) / "kg_prose" / "statements.jsonl"

_spec = importlib.util.spec_from_file_location("prose", ROOT / "benchmarks" / "kg" / "prose.py")
prose = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(prose)


@pytest.mark.parametrize("path", [*OURS, SHARED], ids=lambda path: path.stem)
def test_prose_is_judged_as_a_dermatologist_would(path):
    if not path.exists():
        pytest.skip(f"{path.name} is not there: set DERMIQ_TEST_DATA to the folder that holds kg_prose")
    figures = prose.measure(KGScorer(), prose.read(path))
    assert figures["right"] >= 0.92
    assert figures["right or neutral, contradicted"] <= 2
    assert figures["wrong, supported"] <= 0.06
