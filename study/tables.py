"""Markdown tables of an experiment's numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from study.record import Record, best
from study.selection import Cell, Experiment, title_of
from study.statistics import Spread, collapses, metric, paired, spread, value

NOTHING = "–"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A table whose first `texts` columns are text and the others numbers, aligned to the right."""
    rule = ["---"] * texts + ["---:"] * (len(header) - texts)
    return "\n".join(
        "| " + " | ".join(each.replace("|", "\\|") for each in row) + " |" for row in (header, rule, *rows)
    )


def percent(share: float) -> str:
    """A share in %."""
    return NOTHING if math.isnan(share) else f"{_rounded(share):.1f}"


def points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign."""
    return NOTHING if math.isnan(difference) else f"{_rounded(difference):+.1f}"


def brackets(interval: tuple[float, float]) -> str:
    """An interval in percentage points."""
    low, high = interval
    return NOTHING if math.isnan(low) else f"[{points(low)}, {points(high)}]"


def with_half_width(found: Spread) -> str:
    """``mean ± half-width`` in %; the mean alone where one seed gives no interval."""
    if math.isnan(found.half_width):
        return percent(found.mean)
    return f"{percent(found.mean)} ± {percent(found.half_width)}"


def results(experiment: Experiment, domain: str) -> str:
    """Metrics of each cell on a domain; empty where nothing was run."""
    header = ["", *experiment.place_header, *(metric(name).title for name in experiment.metrics), "runs"]
    rows = []
    for cell in experiment.cells:
        runs = experiment.outcomes(cell, domain)
        if runs:
            means = (with_half_width(over_seeds(experiment, cell, domain, name)) for name in experiment.metrics)
            rows.append([*_label(experiment, cell), *means, str(len(runs))])
    return _table(header, rows, 1 + len(experiment.place_header))


def costs(experiment: Experiment) -> str:
    """What the runs of each cell cost and which checkpoint they gave; empty where nothing was run."""
    header = ["", *experiment.place_header, "rate", "training (CPU s)", "best step", "score on validation", "runs"]
    rows = []
    for cell in experiment.cells:
        runs = list(experiment.runs(cell).values())
        if not runs:
            continue
        seconds = Spread(tuple(run.seconds["train"] for run in runs))
        steps = [run.best_step for run in runs if run.best_step >= 0]
        rows.append([
            *_label(experiment, cell),
            ", ".join(f"{rate:g}" for rate in sorted({run.rate for run in runs})),
            f"{seconds.mean:.0f}",
            _range(steps),
            percent(Spread(tuple(run.validation for run in runs)).mean),
            str(len(runs)),
        ])  # fmt: skip
    return _table(header, rows, 1 + len(experiment.place_header))


def differences(experiment: Experiment) -> str:
    """`of` minus each of `against`, on the same seeds and questions; empty where there is nothing to pair."""
    if not experiment.content.get("against"):
        return ""
    of = experiment.content["of"]
    header = [
        f"{experiment.title(of)} minus", *experiment.place_header, "on", "metric",
        "difference", "95 % over seeds", "95 % over seeds and questions", "pairs",
    ]  # fmt: skip
    rows = []
    for setting in experiment.settings:
        for size in experiment.sizes:
            for against in experiment.content["against"]:
                one, other = (experiment.cell(variant, setting, size) for variant in (of, against))
                rows += _paired_rows(experiment, one, other)
    return _table(header, rows, 3 + len(experiment.place_header))


def _paired_rows(experiment: Experiment, one: Cell, other: Cell) -> list[list[str]]:
    rows = []
    for domain, title in experiment.domains.items():
        for name in experiment.metrics:
            found = paired(experiment.outcomes(one, domain), experiment.outcomes(other, domain), name)
            if found is None:
                continue
            low, high = found.spread.interval
            sure = "**" if low > 0 or high < 0 else ""
            rows.append([
                experiment.title(other.variant), *experiment.place(one), title, metric(name).title,
                f"{sure}{points(found.spread.mean)}{sure}", brackets((low, high)), brackets(found.bootstrap),
                str(len(found.seeds)),
            ])  # fmt: skip
    return rows


def sizes(experiment: Experiment, domain: str) -> str:
    """The main outcome of each variant over training-set sizes; empty where the experiment has but one."""
    if len(experiment.sizes) < 2:
        return ""
    rows = []
    for variant in experiment.variants:
        for setting in experiment.settings if not experiment.is_start(variant) else experiment.settings[:1]:
            cells = [experiment.cell(variant, setting, size) for size in experiment.sizes]
            found = [over_seeds(experiment, cell, domain, experiment.metrics[0]) for cell in cells]
            if any(each.values for each in found):
                place = experiment.place(cells[0])[:-1]  # the size is a column
                rows.append([experiment.title(variant), *place, *map(with_half_width, found)])
    header = ["", *experiment.place_header[:-1], *(f"{size} images" for size in experiment.sizes)]
    return _table(header, rows, len(experiment.place_header))


def stability(experiment: Experiment, domain: str) -> str:
    """How the main outcome of each cell varies over seeds; empty where the experiment has but one setting."""
    if len(experiment.settings) < 2:
        return ""
    name = experiment.metrics[0]
    rows = []
    for cell in experiment.cells:
        found = over_seeds(experiment, cell, domain, name)
        if experiment.is_start(cell.variant) or not found.values:
            continue
        fell = _collapses(experiment, cell, domain, name)
        numbers = (found.mean, found.deviation, min(found.values), max(found.values))
        rows.append([*_label(experiment, cell), *map(percent, numbers), fell, str(len(found.values))])
    header = ["", *experiment.place_header, "mean", "SD over seeds", "lowest", "highest", "collapses", "runs"]
    return _table(header, rows, 1 + len(experiment.place_header))


def _collapses(experiment: Experiment, cell: Cell, domain: str, name: str) -> str:
    start = experiment.start(cell)
    if start is None:
        return NOTHING
    ended, began = (
        {seed: value(outcomes, name) for seed, outcomes in experiment.outcomes(each, domain).items()}
        for each in (cell, start)
    )
    fell, known = collapses(ended, began)
    return f"{fell} of {known}" if known else NOTHING


def tuning(study: Mapping[str, Any], testbed: str, records: Sequence[Record]) -> str:
    """Score on validation and training time of each variant at each learning rate, the chosen rate's in bold."""
    entry = study["tuning"][testbed]
    found = {
        (record.variant, record.rate): record
        for record in records
        if not record.domains and record.testbed == testbed and record.seed == entry["seed"]
    }
    rates = sorted({rate for _, rate in found})
    rows = []
    for variant in entry["variants"]:
        tried = [found[variant, rate] for rate in rates if (variant, rate) in found]
        if not tried:
            continue
        chosen = best(tried)
        cells = [_tried(found.get((variant, rate)), chosen) for rate in rates]
        rows.append([title_of(study, variant), *cells])
    return _table(["", *(f"rate {rate:g}" for rate in rates)], rows)


def shared_rates(study: Mapping[str, Any], testbed: str) -> str:
    """A sentence per tuned variant whose rate others in the testbed's experiments take; empty where none does."""
    named = dict.fromkeys(
        variant
        for experiment in study["experiments"].values()
        if experiment["testbed"] == testbed
        for variant in experiment["variants"]
        if variant in study["variants"]
    )
    sentences = []
    for tuned in study["tuning"][testbed]["variants"]:
        others = [title_of(study, each) for each in named if study["variants"][each].get("tuned_as") == tuned]
        if others:
            sentences.append(f"Not tuned, but run at the rate of {title_of(study, tuned)}: {'; '.join(others)}.")
    return " ".join(sentences)


def _tried(record: Record | None, chosen: Record) -> str:
    if record is None:
        return NOTHING
    text = f"{percent(record.validation)} ({record.seconds['train']:.0f} s)"
    return f"**{text}**" if record is chosen else text


def over_seeds(experiment: Experiment, cell: Cell, domain: str, name: str) -> Spread:
    """A metric of a cell on a domain, one value per seed."""
    return spread([value(outcomes, name) for outcomes in experiment.outcomes(cell, domain).values()])


def _label(experiment: Experiment, cell: Cell) -> list[str]:
    return [experiment.title(cell.variant), *experiment.place(cell)]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    return markdown(header, rows, texts) if rows else ""


def _range(steps: Sequence[int]) -> str:
    if not steps:
        return "last"
    return f"{min(steps)}–{max(steps)}" if min(steps) < max(steps) else str(steps[0])


def _rounded(share: float) -> float:
    return round(100 * share, 1) + 0.0  # no minus before a zero
