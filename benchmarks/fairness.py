"""Effect of balanced sampling on the accuracy on light and on dark skin, over seeds.

    python benchmarks/fairness.py runs/fairness --seeds 0 1 2 --out benchmarks/results/fairness.json

Reads the tested runs `as_drawn-seedN` and `balanced-seedN` of configs/fairness/skin_tones.yaml below a folder. All
seeds are tested on the same lesions, so seeds are averaged within each lesion, and the intervals are over lesions.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from dermiq.metrics.bootstrap import interval, p_value, resampled_means
from dermiq.report import compare, read_run

LIGHT, DARK = ("I", "II", "III"), ("V", "VI")


def correct(run: Path) -> tuple[list[str], NDArray[np.str_], NDArray[np.float64]]:
    """Ids, skin types and correctness of a tested run, in the order of the data."""
    table = pq.read_table(run / "predictions.parquet", columns=["id", "skin_type", "correct"])
    return table["id"].to_pylist(), np.array(table["skin_type"].to_pylist()), table["correct"].to_numpy().astype(float)


def over_seeds(folder: Path, seeds: list[int]) -> dict[str, Any]:
    """Accuracy on light minus dark skin as drawn, balanced, and its change; each with interval and p."""
    columns = []
    for variant in ("as_drawn", "balanced"):
        runs = [correct(folder / f"{variant}-seed{seed}") for seed in seeds]
        if any(ids != runs[0][0] for ids, _, _ in runs):
            raise SystemExit(f"{folder}: the seeds of {variant} were tested on different samples.")
        ids, tones, _ = runs[0]
        right = np.mean([values for _, _, values in runs], axis=0)
        columns += [np.where(np.isin(tones, group), right, np.nan) for group in (LIGHT, DARK)]
    draws = resampled_means(np.stack(columns, axis=1), ids)
    means = np.nanmean(columns, axis=1)
    contrasts = {"as_drawn": [1, -1, 0, 0], "balanced": [0, 0, 1, -1], "change": [-1, 1, 1, -1]}
    found = {
        name: {"mean": float(means @ signs), "interval": interval(draws @ signs), "p": p_value(draws @ signs)}
        for name, signs in contrasts.items()
    }
    groups = ("as_drawn_light", "as_drawn_dark", "balanced_light", "balanced_dark")
    return {"accuracy": dict(zip(groups, means.tolist(), strict=True)), "light_minus_dark": found}


def main() -> None:
    """Compare the runs, seed by seed and over seeds."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = over_seeds(options.folder, options.seeds)
    for seed in options.seeds:
        names = [f"{variant}-seed{seed}" for variant in ("as_drawn", "balanced")]
        compared = compare([read_run(options.folder / name, name) for name in names])
        result[f"seed{seed}"] = {
            "gaps": [asdict(gap) for gap in compared.gaps],
            "skin_types": [asdict(group) for group in compared.skin_types],
            "accuracy": next(asdict(change) for change in compared.differences if change.metric == "accuracy"),
        }
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["light_minus_dark"], indent=1))


if __name__ == "__main__":
    main()
