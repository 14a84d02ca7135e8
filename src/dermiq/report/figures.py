"""The numbers behind the figures of a report, which `dermiq.report.charts` plots."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from dermiq.metrics import PredictionRow
from dermiq.metrics.measures import Measure, by_group, estimates, share
from dermiq.metrics.summary import BINS
from dermiq.report.stages import Stage
from dermiq.trainer.callbacks import confusion_table

Column = Literal["skin_type", "target"]  # that accuracy is split by
HEADLINES = {
    "accuracy": "right diagnoses",
    "majority_accuracy": "right by majority vote",
    "macro_f1": "macro-F1",
    "faithfulness": "stated findings that are true",
    "conversation/reward/kg_contradiction": "contradicted claims in replies",
    "conversation/reward/kg_precision": "KG precision of replies",
}


@dataclass(frozen=True)
class Estimate:
    """A share with its 95 % interval.

    Attributes:
        value: the share.
        low: lower end; None, like `high`, where the evaluation has no interval.
        high: upper end.
        n: cases; None where the evaluation does not say.
    """

    value: float
    low: float | None
    high: float | None
    n: int | None


@dataclass(frozen=True)
class Headline:
    """One metric after each stage.

    Attributes:
        metric: its name in ``metrics.json``.
        title: in words.
        values: of each stage; None where it was not measured.
    """

    metric: str
    title: str
    values: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class Confusion:
    """How often each condition was named as each; see `dermiq.trainer.callbacks.confusion_table`.

    Attributes:
        named: the columns.
        counts: target -> how often it was named as each column.
    """

    named: tuple[str, ...]
    counts: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Bin:
    """Diagnoses whose majority had about the same share of the votes.

    Attributes:
        confidence: the mean share of the votes.
        accuracy: of the majority.
    """

    confidence: float
    accuracy: Estimate


def headlines(stages: Sequence[Stage]) -> list[Headline]:
    """The headline metrics, as far as a stage has them."""
    found = [
        Headline(name, title, tuple(estimate(stage.run.metrics, name) for stage in stages))
        for name, title in HEADLINES.items()
    ]
    return [headline for headline in found if any(headline.values)]


def all_metrics(stages: Sequence[Stage]) -> list[Headline]:
    """Every metric of every stage, by name."""
    names = dict.fromkeys(name for stage in stages for name in stage.run.metrics)
    ends = {f"{name}/{end}" for name in names for end in ("low", "high", "n")}
    return [
        Headline(name, name, tuple(estimate(stage.run.metrics, name) for stage in stages))
        for name in sorted(names)
        if name not in ends
    ]


def estimate(values: dict[str, float], name: str) -> Estimate | None:
    """The metric of that name with what is known about it; None if there is none."""
    if name not in values:
        return None
    n = values.get(f"{name}/n")
    return Estimate(
        values[name], values.get(f"{name}/low"), values.get(f"{name}/high"), None if n is None else round(n)
    )


def confusion(stage: Stage) -> Confusion:
    """Of the stage's judged answers to diagnoses."""
    (_, *named), *lines = csv.reader(io.StringIO(confusion_table(stage.diagnoses)))
    return Confusion(tuple(named), {target: tuple(map(int, counts)) for target, *counts in lines})


def accuracies(stages: Sequence[Stage], column: Column) -> dict[str, list[Estimate | None]]:
    """Accuracy of each stage on the diagnoses of each value of a column of the predictions, those without left out."""
    by_stage = [_estimated(_by(stage.diagnoses, column), stage.diagnoses) for stage in stages]
    groups = sorted({group for found in by_stage for group in found})
    return {group: [found.get(group) for found in by_stage] for group in groups}


def calibration(stage: Stage) -> list[Bin]:
    """The reliability of the majority vote, over equally wide bins of its share of the votes; none without votes."""
    rows = [row for row in stage.diagnoses if row.get("confidence") is not None]
    confidence = np.array([row["confidence"] for row in rows])
    right = np.array([row["target_rank"] == 1 for row in rows], dtype=np.float64)
    places = np.minimum(np.digitize(confidence, np.linspace(0, 1, BINS + 1)) - 1, BINS - 1)
    measures = {str(place): share(right * (places == place), places == place) for place in np.unique(places)}
    found = _estimated(measures, rows)
    return [Bin(float(confidence[places == int(place)].mean()), each) for place, each in found.items()]


def _by(rows: Sequence[PredictionRow], column: Column) -> dict[str, Measure]:
    return by_group([bool(row["correct"]) for row in rows], [row.get(column) for row in rows])


def _estimated(measures: dict[str, Measure], rows: Sequence[PredictionRow]) -> dict[str, Estimate]:
    values = estimates(measures, [row["group"] for row in rows])
    found = {name: estimate(values, name) for name in measures}
    return {name: each for name, each in found.items() if each is not None}
