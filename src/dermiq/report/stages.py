"""A tested run as a stage of a story: its rows and metrics, how it was trained, its curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from dermiq.metrics import PredictionRow
from dermiq.metrics.summary import DIAGNOSIS
from dermiq.report.runs import Key, TestedRun, check_same, read_run
from dermiq.run_directory import RunDirectory
from dermiq.schema import DataError, DermIQError

TRAINING = {
    "SFTModule": "supervised fine-tuning",
    "GRPOModule": "reinforcement learning",
    "DPOModule": "preference learning",
}
POINTS = 40
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
                    f"{RunDirectory(stage.directory).predictions}: {row['id']!r} has no completion. Test the run again."
                )
            check_same(*known.setdefault(key, (stage.title, row)), stage.title, row)
    return stages


def read_curves(directory: Path, points: int = POINTS) -> Curves | None:
    """Training curves of a run, averaged over stretches of steps; None where there are none.

    Args:
        directory: of the run.
        points: the most stretches to average over.

    Raises:
        DataError: see `RunDirectory.curves`.
    """
    values = {name: dict(curve) for name, curve in RunDirectory(directory).curves(CURVES).items()}
    steps = sorted({step for of_steps in values.values() for step in of_steps})
    if not steps:
        return None
    width = -(-(steps[-1] + 1) // points)
    stretches = sorted({step // width for step in steps})
    firsts = [place * width for place in stretches]
    means = {name: _means(found, width) for name, found in values.items()}
    ordered = {name: tuple(map(means[name].get, stretches)) for name in CURVES if name in means}
    return Curves(tuple((first, min(first + width - 1, steps[-1])) for first in firsts), ordered)


def _means(values: Mapping[int, float], width: int) -> dict[int, float]:
    """Number of a stretch of `width` steps -> the mean of the values in it."""
    inside: dict[int, list[float]] = {}
    for step, value in values.items():
        inside.setdefault(step // width, []).append(value)
    return {place: fmean(found) for place, found in inside.items()}


def _training(directory: Path) -> str:
    try:
        name: Any = RunDirectory(directory).config()["model"]["class_path"]
    except (DermIQError, FileNotFoundError, KeyError, TypeError):
        return ""
    return TRAINING.get(name.rpartition(".")[2], "") if isinstance(name, str) else ""
