"""Statistics of the study: metrics of a run, their spread over seeds, paired differences between two variants.

Two intervals stand beside each difference. The one that decides treats the seeds as the sample: Student's t over one
difference per seed, which covers whatever a seed changes (data, model, sampling) on the given test questions. The
other resamples seeds and questions and so covers the choice of the questions as well, but with few seeds it is too
narrow.

Sources: Student, "The probable error of a mean", Biometrika 6, 1908; Owen, "The pigeonhole bootstrap", Annals of
Applied Statistics 1, 2007 (rows and columns of a crossed table are resampled independently).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import t

from dermiq.metrics.bootstrap import Array, Estimate, interval, ratio
from dermiq.metrics.measures import Measure, classification, mean, resample, share
from dermiq.schema import DataError
from study.record import SAMPLES, Outcomes

LEVEL = 0.95
SKIN_TYPES = ("I", "II", "III", "IV", "V", "VI")
LIGHT = ("I", "II", "III")
DARK = ("V", "VI")


@dataclass(frozen=True)
class Metric:
    """A number about a run on a domain.

    Attributes:
        title: how a table calls it.
        measure: what computes it; None where the outcomes do not hold what it needs.
    """

    title: str
    measure: Callable[[Outcomes], Measure | None]


@dataclass(frozen=True)
class Spread:
    """One value per seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """NaN without values."""
        return statistics.fmean(self.values) if self.values else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation over seeds (n - 1); NaN for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else math.nan

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of the mean by Student's t over seeds; NaN for fewer than two."""
        if len(self.values) < 2:
            return math.nan
        quantile = float(t.ppf((1 + LEVEL) / 2, len(self.values) - 1))
        return quantile * self.deviation / math.sqrt(len(self.values))

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean."""
        return self.mean - self.half_width, self.mean + self.half_width


@dataclass(frozen=True)
class Difference:
    """One variant minus another, on the same seeds and questions.

    Attributes:
        seeds: that both have.
        spread: difference per seed, in the order of the seeds.
        bootstrap: 95 % percentile interval of the mean difference, seeds and questions resampled.
    """

    seeds: tuple[int, ...]
    spread: Spread
    bootstrap: tuple[float, float]


def _share_right(outcomes: Outcomes, values: str) -> Measure | None:
    found: Sequence[float] = getattr(outcomes, values)
    return mean(found) if found else None


def _classified(outcomes: Outcomes, name: str) -> Measure:
    titles = [*outcomes.classes, ""]  # the last one is what -1 points at: an answer that names no class
    return classification([titles[each] for each in outcomes.target], [titles[each] for each in outcomes.named])[name]


def _within(outcomes: Outcomes, values: str, skin_types: Sequence[str]) -> Measure | None:
    member = np.isin(outcomes.skin_type, skin_types).astype(np.float64)
    return share(np.asarray(getattr(outcomes, values)) * member, member) if member.any() else None


def _light_minus_dark(outcomes: Outcomes) -> Measure | None:
    light, dark = (_within(outcomes, "majority", skin_types) for skin_types in (LIGHT, DARK))
    if light is None or dark is None:
        return None
    return Measure(
        np.hstack([light.counts, dark.counts]),
        lambda sums: ratio(sums[..., 0], sums[..., 1]) - ratio(sums[..., 2], sums[..., 3]),
    )


def _position_bias(outcomes: Outcomes) -> Measure | None:
    """The largest difference, over the positions, between how often one is chosen and how often it is right."""
    if not outcomes.position:
        return None
    letters = sorted(set(outcomes.position))
    right, chosen = (np.asarray(each)[:, None] == letters for each in (outcomes.position, outcomes.chosen))

    def largest(sums: Array) -> Array:
        of_right, of_chosen = np.split(sums, 2, axis=-1)
        found: Array = np.abs(of_chosen - of_right).max(axis=-1) / of_right.sum(axis=-1)
        return found

    return Measure(np.hstack([right, chosen]).astype(np.float64), largest)


METRICS: Mapping[str, Metric] = {
    "majority": Metric(f"majority of {SAMPLES}", partial(_share_right, values="majority")),
    "greedy": Metric("greedy", partial(_share_right, values="greedy")),
    "sampled": Metric("sampled", partial(_share_right, values="sampled")),
    "truthful": Metric("stated findings true", partial(_share_right, values="truthful")),
    "recalled": Metric("true findings stated", partial(_share_right, values="recalled")),
    "majority_balanced": Metric(
        f"balanced accuracy, majority of {SAMPLES}", partial(_classified, name="balanced_accuracy")
    ),
    "majority_f1": Metric(f"macro-F1, majority of {SAMPLES}", partial(_classified, name="macro_f1")),
    "position_bias": Metric("position bias", _position_bias),
    "light_minus_dark": Metric(f"majority of {SAMPLES}, skin I-III minus V-VI", _light_minus_dark),
} | {
    f"{values}_{name}": metric
    for values, title in {"majority": f"majority of {SAMPLES}", "sampled": "sampled"}.items()
    for name, metric in {
        "light": Metric(f"{title}, skin I-III", partial(_within, values=values, skin_types=LIGHT)),
        "dark": Metric(f"{title}, skin V-VI", partial(_within, values=values, skin_types=DARK)),
        **{
            each: Metric(f"{title}, skin {each}", partial(_within, values=values, skin_types=(each,)))
            for each in SKIN_TYPES
        },
    }.items()
}


def metric(name: str) -> Metric:
    """A metric by the name that the study's file uses.

    Raises:
        DataError: if there is none of this name.
    """
    if name not in METRICS:
        raise DataError(f"The study names the metric {name!r}, which does not exist; there are {', '.join(METRICS)}.")
    return METRICS[name]


def value(outcomes: Outcomes, name: str) -> float:
    """A metric of a run on a domain, as a share; NaN where the outcomes do not hold what it needs."""
    measure = metric(name).measure(outcomes)
    return math.nan if measure is None else measure.value


def spread(values: Sequence[float]) -> Spread:
    """Over seeds; NaN is left out."""
    return Spread(tuple(each for each in values if not math.isnan(each)))


def collapses(values: Mapping[int, float], starts: Mapping[int, float]) -> tuple[int, int]:
    """How many runs ended below what they started from, and of how many that is known.

    Args:
        values: seed -> metric of the trained run.
        starts: seed -> the same metric of its start.
    """
    known = [seed for seed in values if not math.isnan(values[seed]) and not math.isnan(starts.get(seed, math.nan))]
    return sum(values[seed] < starts[seed] for seed in known), len(known)


def paired(of: Mapping[int, Outcomes], against: Mapping[int, Outcomes], name: str) -> Difference | None:
    """A metric of one variant minus that of another, seed by seed on the same questions.

    Args:
        of: seed -> how the one did.
        against: seed -> how the other did.
        name: of the metric.

    Returns:
        None where they share no seed for which the metric is known.

    Raises:
        DataError: if they were tested on different questions.
    """
    pairs: dict[int, tuple[Measure, Measure]] = {}
    for seed in sorted(of.keys() & against.keys()):
        one, other = metric(name).measure(of[seed]), metric(name).measure(against[seed])
        if one is not None and other is not None:
            pairs[seed] = one, other
    if not pairs:
        return None
    if len({(outcomes.classes, outcomes.target) for seed in pairs for outcomes in (of[seed], against[seed])}) > 1:
        raise DataError(
            "Runs of the study that are to be compared were tested on different questions. Delete the records of the "
            "older ones, and run `make reproduce` again."
        )
    first = of[next(iter(pairs))]
    groups = first.group or range(len(first.target))
    found = resample([measure for pair in pairs.values() for measure in pair], groups)
    differences = [one - other for one, other in zip(found[::2], found[1::2], strict=True)]
    return Difference(tuple(pairs), Spread(tuple(each.value for each in differences)), _over_seeds(differences))


def _over_seeds(differences: Sequence[Estimate]) -> tuple[float, float]:
    """Percentile interval of the mean difference, where resamples of questions meet resamples of seeds."""
    by_seed = np.stack([each.resampled for each in differences], axis=1)  # [R, seeds]
    seeds = np.random.default_rng(1).integers(0, by_seed.shape[1], by_seed.shape)
    return interval(np.take_along_axis(by_seed, seeds, axis=1).mean(axis=1), LEVEL)
