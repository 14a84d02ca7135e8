"""Costs and findings of splits: near-duplicates in HAM10000, leaks of a random split, cost of a million rows.

    python benchmarks/data_splits.py --photographs ../shared/data/ham10000 --out benchmarks/results/data_splits.json

`s` is the wall clock's, `cpu_s` that of this process alone, `mib` the growth of its resident memory at the peak.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from measuring import publish

from dermiq.datamodules.base import FRACTIONS
from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sampler import EpochSampler, equalising_weights
from dermiq.datamodules.sources import HAM10000
from dermiq.datamodules.splits import limit_by_group, split_table
from dermiq.datamodules.splits.clusters import cluster_names, group_tie, union
from dermiq.datamodules.splits.leaks import leaks_by_cause
from dermiq.datamodules.splits.perceptual import close_pairs, near_duplicates

DISTANCES = (8, 16, 24, 32, 40, 48)


def memory(field: str) -> float:
    """A size in /proc/self/status, in MiB."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0]) / 1024


@contextmanager
def measured(rows: dict[str, dict[str, float]], name: str) -> Iterator[None]:
    """Time a part, and how far the memory grew."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before, start, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    yield
    rows[name] = {
        "s": round(time.perf_counter() - start, 2),
        "cpu_s": round(time.process_time() - cpu, 2),
        "mib": round(memory("VmHWM") - before),
    }


def large(length: int) -> SampleTable:
    """Three samples to a patient, an ISIC id each of which a tenth stands twice, 100 targets, seven skin types."""
    chance, index = np.random.default_rng(0), np.arange(length)

    def numbered(name: str, numbers: np.ndarray) -> pa.Array:
        return pc.binary_join_element_wise(name, pa.array(numbers).cast(pa.string()), ":")

    def named(numbers: np.ndarray, names: list[str]) -> pa.DictionaryArray:
        return pa.DictionaryArray.from_arrays(pa.array(numbers.astype(np.int32)), names)

    return SampleTable.from_columns(
        id=numbered("row", index),
        group=numbered("patient", index // 3),
        target=named(chance.random(length) ** 3 * 100, [f"condition {i}" for i in range(100)]),
        question_length=index % 50,
        images=1,
        length=index % 999,
        dataset="large",
        links=pa.ListArray.from_arrays(
            pa.array(np.arange(length + 1, dtype=np.int32)), numbered("isic", chance.integers(0, 5 * length, length))
        ),
        skin_type=named(chance.integers(0, 7, length), ["", "I", "II", "III", "IV", "V", "VI"]),
    )


def scale(length: int) -> dict[str, dict[str, float]]:
    """What the data module does with many samples."""
    rows: dict[str, dict[str, float]] = {}
    with measured(rows, "sample table from columns"):
        table = large(length)
    with measured(rows, "split by groups and links"):
        train = table.take(split_table(table, FRACTIONS, 0)["train"])
    with measured(rows, "limit to half"):
        limit_by_group(cluster_names(train), train.strings("target"), length // 2, 0)
    with measured(rows, "balance weights"):
        weights = equalising_weights(train, ["target", "skin_type"])
    with measured(rows, "order of an epoch, balanced"):
        next(iter(EpochSampler(len(train), 8, weights=weights)))
    with measured(rows, "order of an epoch, similar lengths"):
        next(iter(EpochSampler(len(train), 8, lengths=train.integers("length"))))
    return rows


def alike(photographs: str) -> dict[str, object]:
    """Photographs that look alike at several distances, against the lesions that the data set names."""
    source = HAM10000(photographs)
    source.load()
    table = source.table()
    lesions = group_tie(table).keys
    rows = []
    for distance in DISTANCES:
        start = time.perf_counter()
        clusters = union(len(table), [near_duplicates([source], distance).tie])
        seconds = time.perf_counter() - start
        pairs = {(lesions[i], lesions[j]) for i, j in _pairs(clusters)}
        rows.append(
            {
                "distance": distance,
                "s": round(seconds, 1),
                "clusters": int((np.bincount(clusters) > 1).sum()),
                "with several lesions": len({clusters[i] for i, j in _pairs(clusters) if lesions[i] != lesions[j]}),
                "pairs of lesions": len({pair for pair in pairs if pair[0] != pair[1]}),
            }
        )
    leaks = leaks_by_cause(len(table), {"group": group_tie(table)}, {"train": 0.8, "test": 0.2})
    return {"photographs": len(table), "distances": rows, "leak of a random 80/20 split": leaks["group"]._asdict()}


def _pairs(clusters: np.ndarray) -> list[tuple[int, int]]:
    return [(int(root), i) for i, root in enumerate(clusters) if root != i]


def search(length: int, distance: int = 32) -> dict[str, dict[str, float]]:
    """The search for close pairs among random hashes."""
    rows: dict[str, dict[str, float]] = {}
    hashes = np.random.default_rng(0).integers(0, 2**63, (length, 4)).astype(np.uint64)
    with measured(rows, f"{length:,} hashes, distance {distance}"):
        close_pairs(hashes, distance)
    return rows


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", help="HAM10000's folder")
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {"scale": {"samples": options.samples, "parts": scale(options.samples)}, "search": search(100_000)}
    if options.photographs:
        result["alike"] = alike(options.photographs)
    result["machine"] = {"cores": len(os.sched_getaffinity(0)), "load_average": os.getloadavg()[0]}
    publish(result, options.out)


if __name__ == "__main__":
    main()
