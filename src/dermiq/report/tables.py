"""A comparison as tables: on the terminal, as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from dermiq.metrics.measures import LEAST
from dermiq.report.compare import Comparison

HEADLINES = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "sensitivity",
    "specificity",
    "hierarchical_f1",
    "sampled_accuracy",
    "majority_accuracy",
    "majority_ece",
    "accuracy_gap/skin_type",
    "faithfulness",
    "reward/format",
    "choice/accuracy",
    "finding/accuracy",
    "management/accuracy",
    "vqa/accuracy",
    "conversation/reward/kg_contradiction",
    "conversation/reward/kg_coverage",
    "conversation/faithfulness",
)


@dataclass(frozen=True)
class Section:
    """One table: a title, a header, rows of as many cells, and what has to be known to read it."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


def sections(comparison: Comparison) -> list[Section]:
    """The tables that people read."""
    made = [_headlines(comparison), _differences(comparison), _skin_types(comparison), _gaps(comparison)]
    return [section for section in made if section.rows]


def show(comparison: Comparison, console: Console) -> None:
    """Print the tables, as Markdown where the output is no terminal."""
    if not console.is_terminal:
        console.file.write(to_markdown(comparison))
        return
    for section in sections(comparison):
        table = Table(title=section.title, title_justify="left")
        for i, name in enumerate(section.header):
            table.add_column(Text(name), justify="right" if i else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*map(Text, row))
        console.print(table)
        if section.note:
            console.print(Text(section.note))


def to_markdown(comparison: Comparison) -> str:
    """The tables as Markdown."""
    parts = []
    for section in sections(comparison):
        rule = ("---", *("---:" for _ in section.header[1:]))
        lines = ("| " + " | ".join(map(_cell, row)) + " |" for row in (section.header, rule, *section.rows))
        parts.append("\n".join((f"**{section.title}**", "", *lines)))
        if section.note:
            parts.append(section.note)
    return "\n\n".join(parts) + "\n"


def to_json(comparison: Comparison) -> str:
    """All of a comparison as JSON, its fields by name."""
    return json.dumps(asdict(comparison), indent=2, allow_nan=False) + "\n"


def to_csv(comparison: Comparison) -> str:
    """All of a comparison as one CSV, one number and its interval a line; ``table`` says what each line is."""
    records = list(_records(comparison))
    names = dict.fromkeys(name for record in records for name in record)
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return file.getvalue()


def _records(comparison: Comparison) -> Iterator[dict[str, Any]]:
    for run, metrics in comparison.metrics.items():
        for metric, value in metrics.items():
            yield {"table": "metrics", "metric": metric, "run": run, "value": value}
    for difference in comparison.differences:
        yield {"table": "differences", **asdict(difference)}
    for accuracy in comparison.skin_types:
        yield {"table": "skin_types", **asdict(accuracy)}
    for gap in comparison.gaps:
        yield {"table": "gaps", **asdict(gap)}


def _headlines(comparison: Comparison) -> Section:
    known = [comparison.metrics[run] for run in comparison.runs]
    counts = [str(comparison.samples + comparison.left_out[run]) for run in comparison.runs]
    rows = [
        (name, *(_headline(metrics, name) for metrics in known))
        for name in HEADLINES
        if any(name in metrics for metrics in known)
    ]
    note = f"All runs share {comparison.samples} samples in {comparison.groups} groups"
    left_out = [f"{count} of {run}" for run, count in comparison.left_out.items() if count]
    note += f"; what not all were tested on is left out below: {', '.join(left_out)}." if left_out else "."
    header = ("", *comparison.runs)
    return Section("Each run on all its samples, with 95 % intervals", header, (("samples", *counts), *rows), note)


def _headline(metrics: dict[str, float], name: str) -> str:
    if f"{name}/low" not in metrics:
        return _number(metrics.get(name))
    return f"{metrics[name]:.3f} [{metrics[f'{name}/low']:.3f}, {metrics[f'{name}/high']:.3f}]"


def _differences(comparison: Comparison) -> Section:
    several = len(comparison.runs) > 2
    header = ("metric", "run", "n", "first", "run's", "difference", "95 % interval", "p", *["p (Holm)"] * several)
    rows = tuple(
        (
            each.metric,
            each.run,
            str(each.n),
            _number(each.first_value),
            _number(each.value),
            f"{each.difference:+.3f}",
            _interval(each.low, each.high, "+"),
            _p(each.p),
            *[_p(each.p_holm)] * several,
        )
        for each in comparison.differences
    )
    note = (
        "Paired by sample, whole groups resampled. Each line is a test of its own: among many, some fall below 0.05 by "
        "chance, so decide beforehand which metric counts."
    )
    if several:
        note += f" p (Holm) is corrected for the {len(comparison.runs) - 1} runs compared in one metric."
    return Section(f"Against {comparison.runs[0]}, on the same samples", header, rows, note)


def _skin_types(comparison: Comparison) -> Section:
    found = {(each.skin_type, each.run): each for each in comparison.skin_types}
    types = dict.fromkeys(each.skin_type for each in comparison.skin_types)
    rows = []
    for name in types:
        line = [found[name, run] for run in comparison.runs]
        cells = (f"{each.accuracy:.3f} {_interval(each.low, each.high)}" for each in line)
        rows.append((name, str(line[0].n), *cells))
    return Section("Accuracy by skin type, with 95 % intervals", ("skin type", "n", *comparison.runs), tuple(rows))


def _gaps(comparison: Comparison) -> Section:
    header = ("run", "best", "worst", "gap", "95 % interval", "against first", "95 % interval", "p")
    rows = []
    for each in comparison.gaps:
        change = (
            f"{each.difference:+.3f}", _interval(each.difference_low, each.difference_high, "+"), _p(each.p)
        )  # fmt: skip
        shown = ("", "", "") if each.run == comparison.runs[0] else change
        rows.append((each.run, each.best, each.worst, f"{each.gap:.3f}", _interval(each.low, each.high), *shown))
    note = (
        f"Best minus worst skin type, of those with {LEAST} samples or more. Chance alone makes a gap, the more so the "
        "smaller the groups: compare gaps of runs on the same samples rather than a gap with 0."
    )
    return Section("Gap between skin types", header, tuple(rows), note)


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def _interval(low: float | None, high: float | None, sign: str = "") -> str:
    return "" if low is None or high is None else f"[{low:{sign}.3f}, {high:{sign}.3f}]"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
