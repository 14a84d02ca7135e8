"""Verdicts on the source papers' claims, by rule, from what was measured here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dermiq.schema import DataError
from study.selection import Cell, Experiment
from study.statistics import Difference, metric, paired
from study.tables import brackets, markdown, points

HOLDS = "holds"
REVERSED = "does not hold (reversed)"
NOT_SHOWN = "does not hold (no difference shown)"
UNTESTED = "cannot be tested here"


@dataclass(frozen=True)
class Finding:
    """The verdict on one claim.

    Attributes:
        verdict: `HOLDS`, `REVERSED`, `NOT_SHOWN` or `UNTESTED`.
        measured: what was compared, and where; or why nothing was.
        difference: better minus worse; None where it cannot be tested.
    """

    verdict: str
    measured: str
    difference: Difference | None = None


def judge(claim: Mapping[str, Any], experiments: Mapping[str, Experiment]) -> Finding:
    """The finding on a claim of the study's file.

    The claim's `measured` names the experiment, the domain, the metric, and which variant is to be the `better` (of
    which a higher number is claimed) and which the `worse` one. `setting` and `size` hold for both, `better_setting`,
    `worse_setting`, `better_size` and `worse_size` for one. Unsaid, the setting is the usual one (the experiment's
    first where it has no such), the size the experiment's only one.

    Args:
        claim: an entry of ``claims``.
        experiments: see `study.selection.experiments`.

    Raises:
        DataError: if it names what the experiment does not have.
    """
    where = claim.get("measured")
    if where is None:
        return Finding(UNTESTED, claim.get("elsewhere", ""))
    experiment = experiments.get(where["experiment"])
    if experiment is None:
        return Finding(UNTESTED, f"The experiment “{where['experiment']}” was not run.")
    better, worse = (_cell(experiment, where, side) for side in ("better", "worse"))
    domain = where["domain"]
    if domain not in experiment.domains:
        raise DataError(
            f"A claim is measured on the domain {domain!r}, but the experiment {experiment.name} has "
            f"{', '.join(experiment.domains)}."
        )
    one, other = (experiment.outcomes(cell, domain) for cell in (better, worse))
    missing = [_named(experiment, cell) for cell, runs in ((better, one), (worse, other)) if not runs]
    if missing:
        return Finding(UNTESTED, f"There are no runs of {' and '.join(missing)}.")
    found = paired(one, other, where["metric"])
    title = metric(where["metric"]).title
    if found is None:
        return Finding(UNTESTED, f"The runs do not share a seed with “{title}”.")
    compared = f"{_named(experiment, better)} minus {_named(experiment, worse)}: {title}, {experiment.domains[domain]}"
    if len(found.seeds) < 2:
        return Finding(UNTESTED, f"{compared}. One seed gives no interval.", found)
    return Finding(_verdict(found), compared, found)


def _verdict(found: Difference) -> str:
    low, high = found.spread.interval
    if low > 0:
        return HOLDS
    return REVERSED if high < 0 else NOT_SHOWN


def _cell(experiment: Experiment, where: Mapping[str, Any], side: str) -> Cell:
    """The cell that a claim means by its better or worse side."""
    usual = "" if "" in experiment.settings else experiment.settings[0]
    setting = where.get(f"{side}_setting", where.get("setting", usual))
    if setting not in experiment.study["settings"]:
        raise DataError(f"A claim is measured in the setting {setting!r}, which the study does not have.")
    size = where.get(f"{side}_size", where.get("size"))
    if size is None and len(experiment.sizes) > 1:
        raise DataError(
            f"A claim is measured on the experiment {experiment.name}, which has several sizes: say which under `size`."
        )
    return experiment.cell(where[side], setting, size or experiment.sizes[0])


def _named(experiment: Experiment, cell: Cell) -> str:
    """The title of a variant with whatever is not the same for the whole experiment."""
    place = []
    if not experiment.is_start(cell.variant):
        place += [experiment.study["settings"][cell.setting]["title"]] * (list(experiment.settings) != [cell.setting])
        place += [f"{cell.size} images"] * (list(experiment.sizes) != [cell.size])
    return experiment.title(cell.variant) + (f" ({', '.join(filter(None, place))})" if any(place) else "")


def table(claims: Sequence[Mapping[str, Any]], experiments: Mapping[str, Experiment]) -> str:
    """One line per claim: who says what, what was measured here of whose method, and whether it holds.

    A claim's `method` says how much of what was run is the source's own; empty where all of it is.
    """
    header = ["source", "claim", "reported there", "method here", "verdict", "measured here"]
    numbered = ["difference", "95 % interval", "seeds"]
    rows = []
    for claim in claims:
        finding = judge(claim, experiments)
        found = finding.difference
        numbers = ["", "", ""]
        if found is not None:
            numbers = [points(found.spread.mean), brackets(found.spread.interval), str(len(found.seeds))]
        said = [claim["source"], claim["claim"], claim.get("reported", ""), claim.get("method", "")]
        rows.append([*said, f"**{finding.verdict}**", finding.measured, *numbers])
    return markdown([*header, *numbered], rows, texts=len(header))
