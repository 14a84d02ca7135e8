"""Accuracy of saved predictions with 95 % bootstrap intervals, whole groups (lesions, patients) resampled.

python benchmarks/intervals.py runs/ham10000_small/warmstart/predictions.parquet …
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from dermiq.metrics import named_classes
from dermiq.metrics.measures import classification, estimates


def summary(path: Path) -> dict[str, Any]:
    """What the diagnoses in a file of predictions are worth, beside the majority answer's accuracy."""
    rows = [row for row in pq.read_table(path).to_pylist() if row["kind"] == "diagnosis"]
    targets = [row["target"] for row in rows]
    ((majority, count),) = Counter(targets).most_common(1)
    return {
        "file": str(path),
        "samples": len(rows),
        **estimates(classification(targets, named_classes(rows)), [row["group"] for row in rows]),
        "majority_answer": majority,
        "majority_accuracy": count / len(rows),
        "majority_balanced_accuracy": 1 / len(set(targets)),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    print(json.dumps([summary(path) for path in parser.parse_args().files], indent=2))
