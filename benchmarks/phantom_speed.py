"""Synthetic lesions rendered per second on one core, and the accuracy of the best possible reader of their findings.

    python benchmarks/phantom_speed.py --out benchmarks/results/phantom_speed.json

Seconds are those in which the process computed, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

from measuring import publish

from dermiq.datamodules.phantom import PhantomSource

SIZES = (64, 96)
WARM_UP = 50


def images_per_second(size: int, count: int) -> float:
    """Images of `size` pixels rendered per second of one core."""
    source = PhantomSource(count + WARM_UP, size=size)
    references = [sample.images[0] for sample in source]
    for reference in references[:WARM_UP]:
        source.image(reference)
    start = time.process_time()
    for reference in references[WARM_UP:]:
        source.image(reference)
    return count / (time.process_time() - start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=3000, help="images of each size (default: 3000)")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    result = {
        "images_per_second_of_one_core": {size: round(images_per_second(size, options.count)) for size in SIZES},
        "bayes_accuracy": round(PhantomSource(1).bayes_accuracy(), 4),
        "conditions": len(PhantomSource(1).conditions),
        "cores": os.cpu_count(),
        "machine": platform.machine(),
        "load_average": os.getloadavg()[0],
    }
    publish(result, options.out)
