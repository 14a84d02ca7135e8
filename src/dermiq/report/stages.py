"""A tested run as a stage of a story: its rows and metrics, how it was trained, its curves."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from dermiq.metrics.summary import DIAGNOSIS
from dermiq.report.runs import Key, Row, TestedRun, check_same, read_run
from dermiq.schema import DataError

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
    def diagnoses(self) -> list[Row]:
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
    known: dict[Key, tuple[str, Row]] = {}
    for stage in stages:
        for key, row in zip(stage.run.keys, stage.run.rows, strict=True):
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
    paths = directory.glob("metrics/version_*/metrics.csv")
    values: dict[str, dict[int, float]] = {}
    for path in sorted(paths, key=lambda path: (len(path.parent.name), path.parent.name)):
        try:
            lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))
            begins = min((int(line["step"]) for line in lines), default=None)
            if begins is not None:
                values = {name: {step: x for step, x in of.items() if step < begins} for name, of in values.items()}
            for line in lines:
                for name in CURVES:
                    if line.get(name) and math.isfinite(value := float(line[name])):
                        values.setdefault(name, {})[int(line["step"])] = value
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path} is no table of metrics that can be read ({error}). Mend it or move it away."
            ) from error
    steps = sorted({step for of_steps in values.values() for step in of_steps})
    if not steps:
        return None
    width = -(-(steps[-1] + 1) // points)
    stretches = sorted({step // width for step in steps})
    firsts = [place * width for place in stretches]
    means = {name: tuple(_mean(found, first, width) for first in firsts) for name, found in values.items()}
    ordered = {name: means[name] for name in CURVES if name in means}
    return Curves(tuple((first, min(first + width - 1, steps[-1])) for first in firsts), ordered)


def _mean(values: Mapping[int, float], first: int, width: int) -> float | None:
    inside = [values[step] for step in range(first, first + width) if step in values]
    return fmean(inside) if inside else None


def _training(directory: Path) -> str:
    try:
        config: Any = yaml.safe_load((directory / "config.yaml").read_text(encoding="utf-8"))
        name = str(config["model"]["class_path"])
    except (OSError, ValueError, yaml.YAMLError, KeyError, TypeError):
        return ""
    return TRAINING.get(name.rpartition(".")[2], "")
