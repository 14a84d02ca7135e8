"""A tested run as a stage of a story: its rows and metrics, how it was trained, its curves."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dermiq.files import regular_bytes
from dermiq.metrics import PredictionRow
from dermiq.metrics.summary import DIAGNOSIS
from dermiq.programs.exits import reason
from dermiq.programs.yaml_files import read_yaml
from dermiq.report.runs import Key, TestedRun, check_same, read_run
from dermiq.run_directory import CONFIG
from dermiq.schema import DataError, DermIQError
from dermiq.trainer.callbacks import PREDICTIONS

TRAINING = {
    "SFTModule": "supervised fine-tuning",
    "GRPOModule": "reinforcement learning",
    "DPOModule": "preference learning",
}
POINTS = 40
_LARGEST = 1e30  # that a chart has room for
_LAST = 2**53  # step, up to which a float counts
CURVES = (
    "train/loss", "train/reward", "train/accuracy", "train/reward_margin", "train/kl", "train/entropy",
    "train/perplexity", "train/completion_length", "val/accuracy", "val/loss", "val/reward",
)  # fmt: skip


@dataclass(frozen=True)
class Curves:
    """What was logged while a run trained, averaged over stretches of equally many steps.

    Attributes:
        stretches: (first step, last step) of each stretch.
        values: name -> its mean over each stretch; None where nothing was logged.
    """

    stretches: tuple[tuple[int, int], ...]
    values: Mapping[str, tuple[float | None, ...]]


@dataclass(frozen=True)
class Stage:
    """One run of the story.

    Attributes:
        number: its place in the story, from 1.
        run: what its test left.
        directory: where that lies.
        training: how it was trained, in words; empty where its directory does not say.
        curves: None where it was not trained here.
    """

    number: int
    run: TestedRun
    directory: Path
    training: str
    curves: Curves | None

    @property
    def title(self) -> str:
        """What to call it."""
        return self.run.name

    @property
    def diagnoses(self) -> list[PredictionRow]:
        """Its rows of diagnoses."""
        return [row for row in self.run.rows if row["kind"] == DIAGNOSIS]


def read_stages(directories: Sequence[Path], titles: Sequence[str]) -> list[Stage]:
    """Read tested runs, in the order of the story.

    Raises:
        DataError: if one was not tested, a file cannot be read, or an id stands for different questions in two.
    """
    stages = [
        Stage(number, read_run(directory, title), directory, _training(directory), read_curves(directory))
        for number, (directory, title) in enumerate(zip(directories, titles, strict=True), start=1)
    ]
    known: dict[Key, tuple[str, PredictionRow]] = {}
    for stage in stages:
        for key, row in zip(stage.run.keys, stage.run.rows, strict=True):
            if row.get("completion") is None:
                raise DataError(
                    f"{stage.directory / PREDICTIONS}: {row['id']!r} has no completion. Test the run again."
                )
            check_same(*known.setdefault(key, (stage.title, row)), stage.title, row)
    return stages


def read_curves(directory: Path, points: int = POINTS) -> Curves | None:
    """The curves in a run's ``metrics/``, a resumed run's after its beginning's; None where there are none.

    What was logged from the step on that a later part begins with is of a run that was left: two are never one curve.

    Args:
        directory: of the run.
        points: the most stretches to average over.

    Raises:
        DataError: if a file is not a table of Lightning's CSV logger.
    """
    folders = directory.glob("metrics/version_*")
    paths = [path for folder in folders if os.path.lexists(path := folder / "metrics.csv")]
    values: dict[str, dict[int, float]] = {}
    for path in sorted(paths, key=lambda path: (len(path.parent.name), path.parent.name)):
        try:
            logged = list(_logged(path))
            begins = min((step for _, step, _ in logged), default=None)
            if begins is not None:
                values = {name: {step: x for step, x in of.items() if step < begins} for name, of in values.items()}
            for name, step, value in logged:
                values.setdefault(name, {})[step] = value
        except (OSError, ValueError, TypeError, csv.Error) as error:
            raise DataError(
                f"{path} is no table of metrics that can be read ({reason(error)}). Mend it or move it away."
            ) from error
    steps = sorted({step for of_steps in values.values() for step in of_steps})
    if not steps:
        return None
    width = -(-(steps[-1] + 1) // points)
    stretches = sorted({step // width for step in steps})
    firsts = [place * width for place in stretches]
    means = {name: _means(found, width) for name, found in values.items()}
    ordered = {name: tuple(map(means[name].get, stretches)) for name in CURVES if name in means}
    return Curves(tuple((first, min(first + width - 1, steps[-1])) for first in firsts), ordered)


def _logged(path: Path) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of what was logged; what no chart can show (NaN, 1e300) is left out."""
    table = csv.DictReader(regular_bytes(path).decode().splitlines())
    if table.fieldnames is not None and "step" not in table.fieldnames:
        raise ValueError("it has no column step")
    for line in table:
        for name in CURVES:
            if line.get(name) and abs(value := float(line[name])) <= _LARGEST:
                step = int(line["step"])
                if not 0 <= step <= _LAST:
                    raise ValueError(f"no run has a step {line['step'][:40]}")
                yield name, step, value if abs(value) > 1 / _LARGEST else 0.0


def _means(values: Mapping[int, float], width: int) -> dict[int, float]:
    """Number of a stretch of `width` steps -> the mean of the values in it."""
    inside: dict[int, list[float]] = {}
    for step, value in values.items():
        inside.setdefault(step // width, []).append(value)
    return {place: fmean(found) for place, found in inside.items()}


def _training(directory: Path) -> str:
    try:
        config: Any = read_yaml(directory / CONFIG)
        name = config["model"]["class_path"]
    except (DermIQError, FileNotFoundError, KeyError, TypeError):
        return ""
    return TRAINING.get(name.rpartition(".")[2], "") if isinstance(name, str) else ""
