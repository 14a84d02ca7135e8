"""Execution of one run of the study through the users' command line: fit and test, and the record of both."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow.parquet as pq
import torch

from dermiq.cli import run as command_line
from dermiq.files import write_atomically
from dermiq.metrics import PredictionRow, named_classes
from dermiq.run_directory import RunDirectory
from study.plan import Run, Study
from study.record import SAMPLES, Outcomes, Record, dumped

RECORD = "record.json"
BEST = "best.ckpt"
CURVES = (
    "train/reward",
    "train/accuracy",
    "train/completion_length",
    "train/entropy",
    "train/kl",
    "train/uniform_groups",
    "train/all_wrong_groups",
    "train/grad_norm",
    "train/loss",
    "val/sampled_accuracy",
    "val/majority_accuracy",
    "val/sampled_reward/truthfulness",
)
POINTS = 10
DIGITS = 4


def execute(study: Study, run: Run, root: Path, rate: float) -> Record:
    """Train, test, and write the record of a run below `root`; whatever was left of an earlier attempt goes.

    The record is written last of all, so that a run that was killed is no finished run.
    """
    files = RunDirectory(root / run.name)
    shutil.rmtree(files.path, ignore_errors=True)
    files.path.mkdir(parents=True)
    began = time.process_time()
    torch.set_num_threads(1)  # at this size more threads wait for each other longer than they work
    before = study.before(run)
    if before is not None:
        command_line(["predict", f"--config={_written(study, before, run, rate, root)}"])
    configs = [f"--config={_written(study, path, run, rate, root)}" for path in study.configs(run)]
    arguments = [*configs, f"--trainer.default_root_dir={files.path}"]
    done = command_line(["fit", *arguments, f"--seed_everything={run.seed}"])
    trained = time.process_time()
    if not run.tuning:
        best = files.checkpoints / BEST
        chosen = best if best.exists() else files.last_checkpoint
        done.model.eval_samples = SAMPLES
        done.trainer.test(done.model, datamodule=done.datamodule, ckpt_path=chosen, verbose=False)
    seconds = {"train": round(trained - began, 1), "test": round(time.process_time() - trained, 1)}
    record = _record(study, run, files, rate, seconds)
    shutil.rmtree(files.checkpoints)
    write_atomically(files.path / RECORD, dumped(record) + "\n")
    return record


def _written(study: Study, source: str, run: Run, rate: float, root: Path) -> Path:
    path = root / run.name / "configs" / Path(source).name
    write_atomically(path, study.filled(source, run, rate, root))
    return path


def _record(study: Study, run: Run, files: RunDirectory, rate: float, seconds: Mapping[str, float]) -> Record:
    score_name = study.content["testbeds"][run.testbed]["values"]["score"]
    logged = files.curves({*CURVES, score_name})
    scores = logged.get(score_name, [])
    step, score = max(scores, key=lambda point: (point[1], -point[0]), default=(-1, 0.0))
    return Record(
        name=run.name,
        testbed=run.testbed,
        variant=run.variant,
        setting=run.setting,
        size=run.size,
        seed=run.seed,
        fingerprint=study.fingerprint(run, rate),
        rate=rate,
        seconds=seconds,
        curves={name: _thinned(points) for name, points in logged.items()},
        best_step=step,
        validation=score,
        domains={} if run.tuning else _domains(files.predictions, study.content["testbeds"][run.testbed]),
    )


def _thinned(points: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """At most `POINTS` points: means over stretches of equal length."""
    size = max(1, -(-len(points) // POINTS))
    stretches = [points[start : start + size] for start in range(0, len(points), size)]
    return [(stretch[-1][0], round(sum(value for _, value in stretch) / len(stretch), DIGITS)) for stretch in stretches]


def _domains(path: Path, testbed: Mapping[str, Any]) -> dict[str, Outcomes]:
    """Outcomes of the run on each domain of its testbed; prefixes of the samples' ids tell the domains apart."""
    rows = pq.read_table(path).to_pylist()
    parts = {
        name: [row for row in rows if row["id"].startswith(tuple(prefixes))]
        for name, prefixes in testbed["domains"].items()
    }
    return {name: _outcomes(part) for name, part in parts.items() if part}


def _outcomes(rows: Sequence[PredictionRow]) -> Outcomes:
    classes = tuple(sorted({row["target"] for row in rows}))
    places = {name: place for place, name in enumerate(classes)}
    majority = named_classes(rows, "majority") if "majority_lineage" in rows[0] else [row["majority"] for row in rows]
    groups = {name: place for place, name in enumerate(dict.fromkeys(row["group"] for row in rows))}
    return Outcomes(
        target=tuple(places[row["target"]] for row in rows),
        classes=classes,
        greedy=tuple(int(bool(row["correct"])) for row in rows),
        majority=tuple(int(row["target_rank"] == 1) for row in rows),
        named=tuple(places.get(name, -1) for name in majority),
        sampled=_column(rows, "sampled_accuracy"),
        truthful=_column(rows, "sampled_reward/truthfulness"),
        recalled=_column(rows, "sampled_reward/findings"),
        group=tuple(groups[row["group"]] for row in rows) if len(groups) < len(rows) else (),
        skin_type=tuple(cast(str, row["skin_type"]) for row in rows) if rows[0].get("skin_type") else (),
        position=tuple(row["position"] for row in rows) if rows[0].get("position") else (),
        chosen=tuple(row["position_chosen"] or "" for row in rows) if rows[0].get("position") else (),
    )


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[float, ...]:
    """Values of every row; what does not apply, such as findings of an answer without structure, counts as 0."""
    return tuple(round(row.get(name) or 0.0, DIGITS) for row in rows)
