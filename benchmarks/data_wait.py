"""Share of a training step that is spent waiting for data: a configuration for some steps, with and without workers.

    python benchmarks/data_wait.py configs/quickstart/grpo.yaml configs/quickstart/sft.yaml --out FILE

The wait is what Lightning's profiler counts for fetching the next batch, the step all else between two batches. The
first batch, for which workers start, is counted separately.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from pathlib import Path
from statistics import median

import torch
from lightning.pytorch.profilers import SimpleProfiler
from measuring import publish

from dermiq.cli import run

FETCH, STEP = "[_TrainingEpochLoop].train_dataloader_next", "run_training_batch"


def waits(config: str, workers: int, steps: int, more: list[str]) -> dict[str, float]:
    """Seconds per step of one short run."""
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "fit",
            f"--config={config}",
            f"--trainer.default_root_dir={folder}",
            f"--trainer.max_steps={steps}",
            "--trainer.limit_val_batches=0",
            "--trainer.profiler=lightning.pytorch.profilers.SimpleProfiler",
            f"--trainer.profiler.dirpath={folder}",
            "--trainer.profiler.filename=profile",
            f"--data.num_workers={workers}",
        ]
        profiler = run([*arguments, *more]).trainer.profiler
        assert isinstance(profiler, SimpleProfiler)
        first, *fetches = profiler.recorded_durations[FETCH]
        wait, step = sum(fetches) / len(fetches), median(profiler.recorded_durations[STEP])
    found = {"first_s": first, "wait_s": wait, "step_s": step, "share": wait / (wait + step)}
    return {name: round(value, 4) for name, value in found.items()}


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path)
    options, more = parser.parse_known_args()
    rows = [
        {"config": config, "num_workers": workers} | waits(config, workers, options.steps, more)
        for config in options.configs
        for workers in options.workers
    ]
    result = {
        "steps": options.steps,
        "rows": [
            {key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()} for row in rows
        ],
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "machine": platform.machine(),
    }
    publish(result, options.out)


if __name__ == "__main__":
    main()
