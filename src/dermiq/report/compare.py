"""Runs against the first of them, on the same samples, by paired bootstrap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np

from dermiq.metrics import PredictionRow
from dermiq.metrics.bootstrap import Array, Estimate
from dermiq.metrics.measures import LEAST, Measure, by_group, mean, resample, worst_group_gap
from dermiq.metrics.summary import DIAGNOSIS, measures_of
from dermiq.report.runs import TestedRun, common_samples

RESAMPLES = 10_000
_NO_MEASURES = {"target_rank", "findings_true"}  # numbers whose mean says nothing


@dataclass(frozen=True)
class Difference:
    """A run against the first run, over the samples that both have a value for.

    Attributes:
        metric: a name in ``metrics.json``.
        run: the run.
        n: samples.
        first_value: of the first run.
        value: of the run.
        difference: `value` - `first_value`.
        low: lower end of its 95 % interval; None, like what follows, where a single group bears on the metric.
        high: upper end.
        p: two-sided p value of there being no difference.
        p_holm: `p` after Holm's correction for all runs that this metric compares with the first.
    """

    metric: str
    run: str
    n: int
    first_value: float
    value: float
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None


@dataclass(frozen=True)
class GroupAccuracy:
    """The accuracy of a run on the diagnoses of one skin type.

    Attributes:
        run: the run.
        skin_type: the skin type.
        n: diagnoses.
        accuracy: of them.
        low: lower end of its 95 % interval; None if they are of a single group.
        high: upper end.
    """

    run: str
    skin_type: str
    n: int
    accuracy: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Gap:
    """How far the worst skin type lies behind the best in accuracy; see `dermiq.metrics.measures.worst_group_gap`.

    Attributes:
        run: the run.
        best: the skin type with the highest accuracy.
        worst: the one with the lowest.
        gap: between the two.
        low: lower end of its 95 % interval; best and worst are found anew in each resample.
        high: upper end.
        difference: the run's gap - the first run's.
        difference_low: lower end of its 95 % interval.
        difference_high: upper end.
        p: two-sided p value of both gaps being equal.
    """

    run: str
    best: str
    worst: str
    gap: float
    low: float
    high: float
    difference: float
    difference_low: float
    difference_high: float
    p: float


@dataclass(frozen=True)
class Comparison:
    """Runs side by side.

    Attributes:
        runs: names of the runs, the first being what the others are compared with.
        metrics: run -> its ``metrics.json``, over all its samples.
        samples: how many samples all runs were tested on; all that follows is of those.
        groups: groups (patients, lesions) among them, which are what is resampled.
        left_out: run -> its samples that some other run was not tested on.
        differences: one for each metric and each run but the first.
        skin_types: the accuracy of each run on each skin type; empty where none is known.
        gaps: one for each run; empty where fewer than two skin types have enough samples.
    """

    runs: tuple[str, ...]
    metrics: dict[str, dict[str, float]]
    samples: int
    groups: int
    left_out: dict[str, int]
    differences: tuple[Difference, ...]
    skin_types: tuple[GroupAccuracy, ...]
    gaps: tuple[Gap, ...]


def compare(runs: Sequence[TestedRun]) -> Comparison:
    """Compare tested runs with the first of them.

    Raises:
        DataError: if they have no sample in common, or an id stands for different samples.
    """
    keys = common_samples(runs)
    parts = [run.only(keys) for run in runs]
    kinds = dict.fromkeys(row["kind"] for row in parts[0].rows)
    skin_types, gaps = _fairness([_of_kind(run, DIAGNOSIS) for run in parts])
    return Comparison(
        runs=tuple(run.name for run in runs),
        metrics={run.name: run.metrics for run in runs},
        samples=len(keys),
        groups=len({row["group"] for row in parts[0].rows}),
        left_out={run.name: len(run.rows) - len(keys) for run in runs},
        differences=tuple(
            each for kind in kinds for each in _differences([_of_kind(run, kind) for run in parts], kind)
        ),
        skin_types=skin_types,
        gaps=gaps,
    )


def _of_kind(run: TestedRun, kind: str) -> TestedRun:
    return replace(run, rows=tuple(row for row in run.rows if row["kind"] == kind))


def _differences(runs: Sequence[TestedRun], kind: str) -> list[Difference]:
    """Every metric of the first run against every other run that has it, over questions of one kind."""
    first, *others = runs
    groups = [row["group"] for row in first.rows]
    pairs = [(metric, run.name, pair) for run in others for metric, pair in _pairs(kind, first.rows, run.rows).items()]
    estimates = resample([measure for *_, pair in pairs for measure in pair], groups, RESAMPLES)
    found: dict[str, list[Difference]] = {}
    for (metric, run, pair), one, other in zip(pairs, estimates[::2], estimates[1::2], strict=True):
        change = _difference(one, other)
        bearing = _bearing(np.hstack([measure.counts for measure in pair]), groups)
        low, high, p = (*change.interval, change.p) if len(set(bearing)) > 1 else (None, None, None)
        values = (one.value, other.value, change.value)
        name = metric if kind == DIAGNOSIS else f"{kind}/{metric}"
        found.setdefault(name, []).append(Difference(name, run, len(bearing), *values, low, high, p, p))
    return [each for of_metric in found.values() for each in _corrected(of_metric)]


def _pairs(
    kind: str, first: Sequence[PredictionRow], other: Sequence[PredictionRow]
) -> dict[str, tuple[Measure, Measure]]:
    """Metrics of two runs by name: those of `dermiq.metrics`, and means of columns over the rows that both have."""
    one, two = (measures_of(kind, [_as_judged(row) for row in rows]) for rows in (first, other))
    pairs = {name: (measure, two[name]) for name, measure in one.items() if name in two}
    both: list[tuple[Mapping[str, Any], Mapping[str, Any]]] = list(zip(first, other, strict=True))
    for column in sorted(first[0].keys() & other[0].keys() - pairs.keys() - _NO_MEASURES):
        values = [(before[column], after[column]) for before, after in both]
        known = [pair if None not in pair else (None, None) for pair in values]
        if _are_numbers(known):
            before, after = zip(*known, strict=True)
            pairs[column] = (mean(before), mean(after))
    return pairs


def _as_judged(row: PredictionRow) -> PredictionRow:
    """A row as it was before the table gave it columns for what it does not have."""
    return cast(PredictionRow, {name: value for name, value in row.items() if name != "majority" or value is not None})


def _are_numbers(pairs: Sequence[tuple[object, object]]) -> bool:
    known = [value for pair in pairs for value in pair if value is not None]
    return bool(known) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in known)


def _corrected(found: Sequence[Difference]) -> list[Difference]:
    """Differences of several runs from the first in one metric, with Holm's step-down correction (Holm 1979)."""
    values = sorted(each.p for each in found if each.p is not None)
    steps = [(p, (len(values) - i) * p) for i, p in enumerate(values)]
    return [
        each if each.p is None else replace(each, p_holm=min(1.0, max(step for p, step in steps if p <= each.p)))
        for each in found
    ]


def _fairness(runs: Sequence[TestedRun]) -> tuple[tuple[GroupAccuracy, ...], tuple[Gap, ...]]:
    """Accuracy on each known skin type, and the gap between the best and the worst, of runs on the same diagnoses."""
    groups = [row["group"] for row in runs[0].rows]
    types = [row.get("skin_type") for row in runs[0].rows]
    by_type = [by_group([bool(row["correct"]) for row in run.rows], types) for run in runs]
    measures = [
        (run.name, name, each) for run, of_run in zip(runs, by_type, strict=True) for name, each in of_run.items()
    ]
    found = resample([measure for *_, measure in measures], groups, RESAMPLES)
    accuracies = tuple(
        GroupAccuracy(run, name, measure.n or 0, each.value, *_interval(measure, each, groups))
        for (run, name, measure), each in zip(measures, found, strict=True)
    )
    gaps = resample([gap for gap in map(worst_group_gap, by_type) if gap is not None], groups, RESAMPLES)
    return accuracies, tuple(_gaps([run.name for run in runs], by_type, gaps))


def _gaps(names: Sequence[str], by_type: Sequence[dict[str, Measure]], gaps: Sequence[Estimate]) -> Iterator[Gap]:
    for name, accuracies, gap in zip(names, by_type, gaps, strict=False):
        values = {group: each.value for group, each in accuracies.items() if (each.n or 0) >= LEAST}
        best, worst = max(values, key=values.__getitem__), min(values, key=values.__getitem__)
        change = _difference(gaps[0], gap)
        yield Gap(name, best, worst, gap.value, *gap.interval, change.value, *change.interval, change.p)


def _difference(one: Estimate, other: Estimate) -> Estimate:
    """`other` - `one`, whose zeros are zeros whatever the order in which sums were rounded."""
    found = other - one
    return replace(found, resampled=np.round(found.resampled, 12))


def _interval(measure: Measure, found: Estimate, groups: Sequence[str]) -> tuple[float, float] | tuple[None, None]:
    return found.interval if len(set(_bearing(measure.counts, groups))) > 1 else (None, None)


def _bearing(counts: Array, groups: Sequence[str]) -> list[str]:
    """The group of each sample that bears on a measure; of a single group there are no resamples but itself."""
    return [group for group, each in zip(groups, counts, strict=True) if each.any()]
