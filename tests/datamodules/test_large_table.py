"""A table of a million rows: how soon and in how much memory training starts; see benchmarks/large_table.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "large_table.py"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads memory from /proc")
def test_training_starts_within_20_seconds_and_1_gib(tmp_path):
    subprocess.run([sys.executable, BENCHMARK, "--out", tmp_path / "result.json"], check=True)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["rows"] == 1_000_000
    for start in ("first", "again"):
        assert 0 < result[start]["cpu_seconds"] < 20  # of computing: other work on the machine does not count
        assert 0 < result[start]["mib_over_imports"] < 1024
