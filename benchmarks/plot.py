"""Figures and the table of `versus_trl.py`'s results.

    python benchmarks/plot.py benchmarks/results/versus_trl_cpu.json --out docs/images     # SVG and PNG
    python benchmarks/plot.py benchmarks/results/versus_trl_cpu.json --table               # Markdown

Points are medians of ratios of steps that stood side by side, bars reach from the smallest to the largest, and dashed
lines are what the cost model predicts from FLOPs alone.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

Entry = dict[str, Any]
# Colours of Okabe and Ito, which colour-blind eyes can tell apart; markers differ too.
PHASES = {
    "step": ("whole step", "#0072B2", "o"),
    "rollout": ("rollout", "#E69F00", "s"),
    "update": ("update", "#009E73", "^"),
    "update_alone": ("update with the prefill", "#CC79A7", "v"),
}
AXES = {
    "prompt_tokens": ("tokens of the prompt", "prompt"),
    "group_size": ("completions per prompt", "group"),
    "new_tokens": ("tokens of a completion", "completion"),
}
USUAL = {
    "kind": "time", "family": "qwen2_5_vl", "size": "medium", "prompt_tokens": 1100, "new_tokens": 64, "group_size": 8,
}  # fmt: skip
SIDES = {  # of memory: (side, micro-batch of TRL)
    ("dermiq", 0): ("DermIQ", "#0072B2", "o"),
    ("trl", 1): ("TRL, one completion at a time", "#D55E00", "s"),
    ("trl", 4): ("TRL, four at a time", "#999999", "^"),
}
STYLE = {"font.size": 10, "axes.grid": True, "grid.alpha": 0.3, "svg.hashsalt": "dermiq", "svg.fonttype": "none"}


def cells_along(cells: Sequence[Entry], axis: str) -> list[Entry]:
    """Cells that differ from the usual one along `axis` alone, in its order."""
    fixed = {name: value for name, value in USUAL.items() if name != axis}
    found = [cell for cell in cells if fixed.items() <= cell["settings"].items()]
    return sorted(found, key=lambda cell: cell["settings"][axis])


def plot_ratios(ax: Axes, cells: Sequence[Entry], axis: str) -> None:
    """How many times as fast as TRL, along one axis."""
    places = [cell["settings"][axis] for cell in cells]
    for phase, (label, colour, marker) in PHASES.items():
        measured = [cell["trl_over_dermiq"][phase] for cell in cells]
        medians = [values["median"] for values in measured]
        spread = [
            [values["median"] - min(values["all"]) for values in measured],
            [max(values["all"]) - values["median"] for values in measured],
        ]
        ax.errorbar(places, medians, spread, label=label, color=colour, marker=marker, capsize=3, markersize=5)
        predicted = [cell["predicted"]["trl_over_dermiq"][phase]["flops"] for cell in cells]
        ax.plot(places, predicted, color=colour, linestyle="--", linewidth=1)
    ax.plot([], [], color="black", linestyle="--", linewidth=1, label="predicted from FLOPs")
    ax.axhline(1, color="black", linewidth=0.8)
    _scale(ax, places)
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter("{x:g}")
    ax.set_xlabel(AXES[axis][0])
    ax.set_ylabel("times as fast as TRL")
    ax.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))


def plot_memory(ax: Axes, cells: Sequence[Entry], phase: str) -> None:
    """What a phase adds to resident memory, over the group size."""
    for (side, micro_batch), (label, colour, marker) in SIDES.items():
        chosen = {"kind": "memory", "side": side, "micro_batch": micro_batch}
        mine = [cell for cell in cells if chosen.items() <= cell["settings"].items()]
        mine.sort(key=lambda cell: cell["settings"]["group_size"])
        if not mine or (phase == "rollout" and micro_batch > 1):  # TRL's rollout has no micro-batches
            continue
        label = "TRL" if phase == "rollout" and side == "trl" else label
        places = [cell["settings"]["group_size"] for cell in mine]
        ax.plot(places, [cell["mib"][f"{phase}_growth"] for cell in mine], label=label, color=colour, marker=marker)
        _scale(ax, places)
    ax.set_ylim(bottom=0)
    ax.set_xlabel(AXES["group_size"][0])
    ax.set_ylabel(f"MiB that the {phase} adds")
    ax.legend(fontsize=8)


def _scale(ax: Axes, places: Sequence[int]) -> None:
    """A logarithmic axis that names its points."""
    ax.set_xscale("log")
    ax.set_xticks(places, [str(place) for place in places])
    ax.xaxis.set_minor_locator(NullLocator())


def pictures(cells: Sequence[Entry]) -> dict[str, Figure]:
    """By name, the figures that the cells are enough for: a line needs two points."""
    found = {}
    for axis, (_, name) in AXES.items():
        along = cells_along(cells, axis)
        if len(along) > 1:
            found[f"speed_over_{name}"], (ax,) = _figure(7.5, 1)
            plot_ratios(ax, along, axis)
    memory = [cell for cell in cells if cell["settings"]["kind"] == "memory"]
    if len({cell["settings"]["group_size"] for cell in memory}) > 1:
        found["memory_over_group"], (left, right) = _figure(10, 2)
        plot_memory(left, memory, "update")
        plot_memory(right, memory, "rollout")
    return found


def _figure(width: float, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, 4), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def table(cells: Sequence[Entry]) -> str:
    """Markdown: one line per cell of times, then one per cell of memory."""
    lines = [
        "| model | prompt | new | G | TRL s | DermIQ s | step | rollout | update | with prefill | predicted step |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for cell in cells:
        settings = cell["settings"]
        if settings["kind"] != "time":
            continue
        seconds = [f"{cell['seconds'][side]['step']['median']:.2f}" for side in ("trl", "dermiq")]
        ratios = [_ratio(cell["trl_over_dermiq"][phase]) for phase in PHASES]
        predicted = f"{cell['predicted']['trl_over_dermiq']['step']['flops']:.1f}"
        lines.append(f"| {' | '.join([*_place(settings), *seconds, *ratios, predicted])} |")
    memory = [cell for cell in cells if cell["settings"]["kind"] == "memory"]
    if memory:
        lines += ["", "| memory, MiB added | G | rollout | update |", "|---|--:|--:|--:|"]
    for cell in memory:
        settings, mib = cell["settings"], cell["mib"]
        label = SIDES.get((settings["side"], settings["micro_batch"]), (settings["side"],))[0]
        values = (settings["group_size"], f"{mib['rollout_growth']:.0f}", f"{mib['update_growth']:.0f}")
        lines.append(f"| {label} | {' | '.join(map(str, values))} |")
    return "\n".join(lines)


def targets(found: Sequence[Entry]) -> str:
    """Markdown: what was aimed at, and what was measured."""
    lines = ["| target | aimed at | measured | |", "|---|--:|--:|---|"]
    for each in found:
        verdict = "met" if each["met_by"] >= 1 else f"missed: {each['met_by']:.0%} of it"
        lines.append(f"| {each['what']} | {each['target']} | {each['measured']:.2f} | {verdict} |")
    return "\n".join(lines)


def _place(settings: Entry) -> list[str]:
    family = f"{settings['family']} {settings['size']}"
    return [family, *(str(settings[name]) for name in ("prompt_tokens", "new_tokens", "group_size"))]


def _ratio(values: Entry) -> str:
    return f"{values['median']:.1f} ({min(values['all']):.1f}–{max(values['all']):.1f})"


def main() -> None:
    """Draw, or print the table."""
    parser = argparse.ArgumentParser(description="Draw the results of versus_trl.py.")
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE", help="JSON that versus_trl.py wrote")
    parser.add_argument("--out", type=Path, help="folder of the pictures")
    parser.add_argument("--table", action="store_true", help="print the table as Markdown")
    options = parser.parse_args()
    results = [json.loads(file.read_text()) for file in options.files]
    cells = [cell for result in results for cell in result["cells"]]
    if options.table:
        print(table(cells), *(targets(result["targets"]) for result in results if result["targets"]), sep="\n\n")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context(STYLE):
            for name, figure in pictures(cells).items():
                figure.savefig(options.out / f"{name}.svg", metadata={"Date": None})
                figure.savefig(options.out / f"{name}.png", dpi=150)


if __name__ == "__main__":
    main()
