"""Figures of an experiment as SVG: learning curves, and accuracy over training-set sizes.

The same records give the same bytes with the same version of matplotlib.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator
from numpy.typing import NDArray

from study.record import Record
from study.selection import Cell, Experiment
from study.statistics import metric
from study.tables import over_seeds

# Colours of Okabe and Ito, which colour-blind readers can distinguish; markers and dashes differ too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DASHES = ("-", "--", ":", "-.")
MARKERS = ("o", "s", "^", "v", "D", "P", "X")
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "svg.hashsalt": "dermiq",
    "svg.fonttype": "none",
}
WITHOUT_DATE = {"Date": None, "Creator": None}
ACROSS = 3
WIDTH, HEIGHT = 3.2, 2.5
LETTERS_PER_INCH, LETTERS_OF_A_LINE = 13, 9  # of the legend, its line and the space beside it
TITLES = {
    "train/reward": "reward",
    "train/accuracy": "accuracy in training",
    "train/completion_length": "completion (tokens)",
    "train/entropy": "entropy (nats)",
    "train/kl": "KL to the reference (nats)",
    "train/uniform_groups": "share of uniform groups",
    "train/loss": "loss",
    "val/sampled_accuracy": "validation: sampled accuracy",
    "val/majority_accuracy": "validation: majority accuracy",
    "val/sampled_reward/truthfulness": "validation: stated findings true",
}
Curve = NDArray[np.float64]


def pictures(experiment: Experiment) -> dict[str, bytes]:
    """File name -> SVG, of the pictures that the records are enough for."""
    with mpl.rc_context(STYLE):
        figures = {
            f"study_{experiment.name}.svg": learning_curves(experiment),
            f"study_{experiment.name}_sizes.svg": accuracy_over_sizes(experiment),
        }
        return {name: _svg(figure) for name, figure in figures.items() if figure is not None}


def learning_curves(experiment: Experiment) -> Figure | None:
    """A panel per metric, and per setting and size; lines are means over seeds, bands reach from lowest to highest."""
    label, scales = _axis([run for cell in experiment.cells for run in _trained(experiment, cell)])
    rows = []
    for setting in experiment.settings:
        for size in experiment.sizes:
            cells = [experiment.cell(variant, setting, size) for variant in experiment.variants]
            names = experiment.content.get("curves", ())
            panels = [(name, found) for name in names if (found := _curves(experiment, cells, name, scales))]
            if panels:
                rows.append((", ".join(filter(None, experiment.place(cells[-1]))), panels))
    if not rows:
        return None
    across = min(ACROSS, len(rows[0][1])) if len(rows) == 1 else max(len(panels) for _, panels in rows)
    down = sum(-(-len(panels) // across) for _, panels in rows)
    figure = Figure(figsize=(WIDTH * across, HEIGHT * down + 0.4), layout="constrained")
    axes = figure.subplots(down, across, squeeze=False)
    for ax in axes.flat:
        ax.set_visible(False)
    first: dict[str, Axes] = {}
    row = 0
    for place, panels in rows:
        for number, (name, curves) in enumerate(panels):
            ax = axes[row + number // across, number % across]
            ax.set_visible(True)
            _plot_curves(ax, experiment, curves)
            ax.set_xlabel(label)
            if first.setdefault(name, ax) is not ax:
                ax.sharey(first[name])
            ax.set_title("\n".join(part for part in (TITLES.get(name, name), place) if part), fontsize=9)
        row += -(-len(panels) // across)
    _legend(figure)
    return figure


def accuracy_over_sizes(experiment: Experiment) -> Figure | None:
    """A panel per domain: the main outcome over training-set sizes in the first setting; bars are 95 % t intervals."""
    if len(experiment.sizes) < 2:
        return None
    name = experiment.metrics[0]
    figure = Figure(figsize=(WIDTH * max(2, len(experiment.domains)), HEIGHT + 0.8), layout="constrained")
    for ax, (domain, title) in zip(
        figure.subplots(1, len(experiment.domains), squeeze=False)[0], experiment.domains.items(), strict=True
    ):
        for variant in experiment.variants:
            _plot_sizes(ax, experiment, variant, domain)
        ax.set_xscale("log", base=2)
        ax.set_xticks(experiment.sizes, [str(size) for size in experiment.sizes])
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_xlabel("labelled training images")
        ax.set_ylabel(f"{metric(name).title} (%)")
        ax.set_title(title, fontsize=9)
    if not any(ax.has_data() for ax in figure.axes):
        return None
    _legend(figure)
    return figure


def _trained(experiment: Experiment, cell: Cell) -> list[Record]:
    return [] if experiment.is_start(cell.variant) else list(experiment.runs(cell).values())


def _axis(runs: Sequence[Record]) -> tuple[str, Mapping[str, float]]:
    """What the horizontal axis is, and by run what a step is on it: the share of the training where lengths differ."""
    lengths = {run.name: max((step for curve in run.curves.values() for step, _ in curve), default=0) for run in runs}
    if len(set(lengths.values())) == 1:
        return "optimiser steps", dict.fromkeys(lengths, 1.0)
    return "training done (%)", {name: 100 / max(length, 1) for name, length in lengths.items()}


def _curves(
    experiment: Experiment, cells: Sequence[Cell], name: str, scales: Mapping[str, float]
) -> dict[str, list[Curve]]:
    """Variant -> one curve [n, 2] per run, of the trained variants whose runs log the metric."""
    found = {
        cell.variant: [
            np.array(sorted(run.curves[name]), dtype=np.float64) * (scales[run.name], 1)
            for run in _trained(experiment, cell)
            if run.curves.get(name)
        ]
        for cell in cells
    }
    return {variant: curves for variant, curves in found.items() if curves}


def _plot_curves(ax: Axes, experiment: Experiment, curves: Mapping[str, Sequence[Curve]]) -> None:
    for variant, runs in curves.items():
        steps, values = _on_common_steps(runs)
        colour, dashes, _ = _look(experiment, variant)
        ax.plot(steps, values.mean(axis=0), color=colour, linestyle=dashes, label=experiment.title(variant))
        if len(curves) <= len(COLOURS):
            ax.fill_between(steps, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))


def _on_common_steps(runs: Sequence[Curve]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Steps [n] that all runs reach, and the runs' values there [runs, n], interpolated where one logged none."""
    first, last = max(run[0, 0] for run in runs), min(run[-1, 0] for run in runs)
    steps = np.unique(np.concatenate([run[:, 0] for run in runs]))
    steps = steps[(steps >= first) & (steps <= last)]
    return steps, np.stack([np.interp(steps, run[:, 0], run[:, 1]) for run in runs])


def _plot_sizes(ax: Axes, experiment: Experiment, variant: str, domain: str) -> None:
    name, setting = experiment.metrics[0], experiment.settings[0]
    colour, dashes, marker = _look(experiment, variant)
    found = {
        size: over_seeds(experiment, experiment.cell(variant, setting, size), domain, name) for size in experiment.sizes
    }
    found = {size: spread for size, spread in found.items() if spread.values}
    if not found:
        return
    label = experiment.title(variant)
    if experiment.is_start(variant):
        ax.axhline(100 * next(iter(found.values())).mean, color=colour, linestyle=":", label=label)
        return
    means = [100 * spread.mean for spread in found.values()]
    bars = [0.0 if math.isnan(spread.half_width) else 100 * spread.half_width for spread in found.values()]
    ax.errorbar(
        list(found), means, bars, color=colour, linestyle=dashes, marker=marker, markersize=4, capsize=3, label=label
    )


def _look(experiment: Experiment, variant: str) -> tuple[str, str, str]:
    """Colour, dashes and marker of a variant: the one that others are held against comes first, starts are grey."""
    if experiment.is_start(variant):
        return "#777777", ":", ""
    trained = [each for each in experiment.variants if not experiment.is_start(each)]
    trained.sort(key=lambda each: each != experiment.content.get("of"))
    place = trained.index(variant)
    return COLOURS[place % len(COLOURS)], DASHES[place // len(COLOURS) % len(DASHES)], MARKERS[place % len(MARKERS)]


def _legend(figure: Figure) -> None:
    """One legend for all panels, below them, in as many columns as fit."""
    entries: dict[str, Artist] = {}
    for ax in figure.axes:
        handles, labels = ax.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    across = int(LETTERS_PER_INCH * figure.get_figwidth() / (max(map(len, entries)) + LETTERS_OF_A_LINE))
    figure.legend(
        list(entries.values()), list(entries), loc="outside lower center", ncols=max(1, across), frameon=False
    )


def _svg(figure: Figure) -> bytes:
    file = BytesIO()
    figure.savefig(file, format="svg", metadata=WITHOUT_DATE)
    return file.getvalue()
