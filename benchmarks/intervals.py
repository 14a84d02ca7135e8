"""Balanced accuracy of saved predictions with 95 % bootstrap intervals, whole groups (lesions, patients) resampled.

python benchmarks/intervals.py runs/ham10000_small/warmstart/test_predictions.jsonl …
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

RESAMPLES = 2000


def balanced_accuracy(targets: np.ndarray, correct: np.ndarray, weights: np.ndarray) -> float:
    """Mean of the targets' recalls; `weights` [n] counts how often each sample was drawn."""
    recalls = [
        np.average(correct[targets == target], weights=weights[targets == target])
        for target in np.unique(targets)
        if weights[targets == target].sum() > 0
    ]
    return float(np.mean(recalls))


def interval(targets: np.ndarray, correct: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 2.5th and 97.5th percentile over resampled groups."""
    _, index = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(RESAMPLES):
        drawn = np.bincount(rng.integers(0, index.max() + 1, index.max() + 1), minlength=index.max() + 1)
        values.append(balanced_accuracy(targets, correct, drawn[index]))
    return float(np.percentile(values, 2.5)), float(np.percentile(values, 97.5))


def summary(path: Path) -> dict[str, float | int | str | list[float]]:
    """Greedy accuracy and balanced accuracy of a file of predictions, beside the majority answer's."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    targets = np.array([row["target"] for row in rows])
    correct = np.array([row["correct"] for row in rows], dtype=float)
    groups = np.array([row["group"] for row in rows])
    names, counts = np.unique(targets, return_counts=True)
    low, high = interval(targets, correct, groups)
    return {
        "file": str(path),
        "samples": len(rows),
        "accuracy": float(correct.mean()),
        "balanced_accuracy": balanced_accuracy(targets, correct, np.ones(len(rows))),
        "interval_95": [low, high],
        "majority_answer": str(names[counts.argmax()]),
        "majority_accuracy": float(counts.max() / len(rows)),
        "majority_balanced_accuracy": 1 / len(names),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", type=Path, nargs="+")
    print(json.dumps([summary(path) for path in parser.parse_args().files], indent=2))
