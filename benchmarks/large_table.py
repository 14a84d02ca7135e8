"""Time and memory until training starts on a table of a million rows.

    python benchmarks/large_table.py --out benchmarks/results/large_table.json

Writes a Parquet file of `--rows` rows (image, diagnosis, patient, skin type, site, question; eight photographs that
all rows share), and starts a fresh process that imports the program, sets a `PromptDataModule` up (grouped by patient,
stratified, balanced by label and skin type) and takes the first training batch, encoded by the tiny model's processor.
Twice: `first`, before the `datasets` library has converted the file, and `again`.

Seconds count from the start of the process; `cpu_seconds` are those in which it computed, which a busy machine does
not change. Memory is its resident peak over what it held after its imports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from measuring import publish
from PIL import Image

BATCH_SIZE = 8
CONDITIONS = ("melanoma", "nevus", "bcc", "seborrhoeic keratosis", "psoriasis", "acne", "vitiligo", "rosacea")
IMAGES = 8
PER_PATIENT = 4
SITES = ("face", "trunk", "arm", "leg")


def write_table(folder: Path, rows: int) -> Path:
    """A Parquet file of `rows` rows, and the photographs that they share."""
    chance = np.random.default_rng(0)
    for number in range(IMAGES):
        pixels = chance.integers(120, 220, (48, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg")
    names = pa.array([f"{number}.jpg" for number in range(IMAGES)])
    columns = {
        "image": names.take(pa.array(chance.integers(IMAGES, size=rows))),
        "dx": pa.array(CONDITIONS).take(pa.array(chance.integers(len(CONDITIONS), size=rows))),
        "patient": pa.array([f"P{number:07d}" for number in chance.integers(rows // PER_PATIENT, size=rows)]),
        "skin": pa.array(chance.integers(-1, 7, size=rows)).cast(pa.string()),
        "site": pa.array(SITES).take(pa.array(chance.integers(len(SITES), size=rows))),
        "question": pa.array(
            [f"What is this lesion, photographed on day {day}?" for day in chance.integers(99, size=rows)]
        ),
    }
    columns["skin"] = pa.compute.replace_substring(columns["skin"], "0", "-1")
    path = folder / "table.parquet"
    pyarrow.parquet.write_table(pa.table(columns), path)
    return path


def resident(field: str) -> float:
    """Resident memory of this process in MiB: `VmRSS` now, `VmHWM` at its highest since the last reset."""
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{field}:")[1].split()[0]) / 1024


def start_training(table: Path, model: Path, began: float) -> dict[str, float]:
    """Everything up to the first training batch, in this process (Linux only)."""
    from dermiq.cli import main  # noqa: F401  # what every run imports
    from dermiq.datamodules import PromptDataModule
    from dermiq.datamodules.sources import TabularSource

    imported, importing, baseline = time.time(), time.process_time(), resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM to VmRSS
    columns = {"question_column": "question", "group_column": "patient", "skin_type_column": "skin"}
    source = TabularSource(str(table), "image", "dx", site_column="site", **columns)
    data = PromptDataModule(str(model), {"all": source}, batch_size=BATCH_SIZE, balance=["label", "skin_type"])
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert len(batch["samples"]) == BATCH_SIZE
    return {
        "seconds": round(time.time() - began, 2),
        "cpu_seconds": round(time.process_time(), 2),
        "seconds_of_imports": round(imported - began, 2),
        "cpu_seconds_of_imports": round(importing, 2),
        "mib_over_imports": round(resident("VmHWM") - baseline),
        "mib_of_imports": round(baseline),
        "training_samples": len(data.splits["train"]),
    }


def measure(rows: int) -> dict[str, dict[str, float]]:
    """The first start on a new table, and the one after it, each in a fresh process."""
    from dermiq.tiny import write_tiny_vlm

    with tempfile.TemporaryDirectory() as folder:
        table, model = write_table(Path(folder), rows), Path(folder) / "model"
        write_tiny_vlm(model)
        environment = os.environ | {"HF_DATASETS_CACHE": str(Path(folder) / "cache"), "HF_HUB_OFFLINE": "1"}
        measured = {}
        for name in ("first", "again"):
            command = [sys.executable, __file__, "--table", table, "--model", model, "--began", str(time.time())]
            out = subprocess.run(
                list(map(str, command)), env=environment, check=True, stdout=subprocess.PIPE, text=True
            )
            measured[name] = json.loads(out.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.table:
        print(json.dumps(start_training(options.table, options.model, options.began)))
        return
    before = os.getloadavg()[0]
    result = {
        "rows": options.rows,
        **measure(options.rows),
        "load_average_before": round(before, 2),
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    publish(result, options.out)


if __name__ == "__main__":
    main()
