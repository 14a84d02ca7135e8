"""The study's page in Markdown, from its file and its records alone."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dermiq.files import write_atomically
from study import claims, tables
from study.figures import COLOURS, pictures
from study.record import Record
from study.selection import Experiment, experiments
from study.statistics import metric

READING = f"""\
**How to read it.** Shares are in %, differences in percentage points. `±` and intervals are 95 % by Student's t over
seeds, a seed being that of data, model and sampling together. Differences are paired: the same seed and the same test
questions. A second interval of each resamples seeds and questions (bootstrap); few seeds make it too narrow, so that
the first one decides. Differences whose first interval excludes 0 are **bold**; each is a test of its own, and of
many some exclude 0 by chance. Learning rates and checkpoints were chosen on validation data, never on test data.

**Verdicts** follow by rule from the first interval of "better minus worse": *holds* if it lies above 0, *does not hold
(reversed)* if it lies below, *does not hold (no difference shown)* if it includes 0. The last is no proof that there
is no difference, only that these runs do not show one.

**Pictures.** Lines are means over seeds. Bands of learning curves reach from the lowest to the highest seed (no bands
where there are more than {len(COLOURS)} variants); where variants take different numbers of steps, the axis is the
share of the training that is done. Bars over training-set sizes are 95 % intervals as in the tables."""
REGENERATING = """\
## How to make this page again

`make reproduce` carries out what is not yet recorded and writes the records, this page and its pictures;
`python -m study --page-only --publish docs/study` writes the page from the records that
are published. A test does the same and compares every byte."""


def write_page(study: Mapping[str, Any], records: Sequence[Record], out: Path, images: Path) -> None:
    """Write the study's page and its pictures.

    Args:
        study: the study's file as YAML gives it.
        records: of its runs; what is missing is left out, and the page says so.
        out: the page.
        images: folder of the pictures, which the page links by relative paths.

    Raises:
        DataError: if the study names what does not exist, or records contradict each other.
        DermIQError: if a file cannot be written.
    """
    found = experiments(study, records)
    images_of = {name: pictures(experiment) for name, experiment in found.items()}
    folder = Path(os.path.relpath(images, out.parent)).as_posix()
    parts = [
        _header(study, records, found.values()),
        *(
            _section(experiment, [f"{folder}/{name}" for name in images_of[experiment.name]])
            for experiment in found.values()
        ),
        _tuning(study, records),
        REGENERATING,
    ]
    for name, picture in (item for each in images_of.values() for item in each.items()):
        write_atomically(images / name, picture)
    write_atomically(out, "\n\n".join(part.strip() for part in parts if part) + "\n")


def _header(study: Mapping[str, Any], records: Sequence[Record], found: Iterable[Experiment]) -> str:
    hours = sum(seconds for record in records for seconds in record.seconds.values()) / 3600
    named = {experiment.name: experiment for experiment in found}
    tuned = sum(not record.domains for record in records)
    paragraphs = [
        "<!-- Written by python -m study: do not edit. -->",
        "# The study",
        "This page is written by `make reproduce` from [the records of the runs](study/records.jsonl) and "
        "[the study's file](../study/study.yaml); none of its numbers is typed in. It rests on "
        f"{len(records)} runs, {tuned} of them for tuning alone, that took {hours:.1f} hours of CPU time in all.",
        READING,
    ]
    if study.get("claims"):
        paragraphs += ["## Claims", claims.table(study["claims"], named)]
    return "\n\n".join(paragraphs)


def _section(experiment: Experiment, links: Sequence[str]) -> str:
    content = experiment.content
    parts = [f"## {content['title']}", str(content.get("text", "")).strip(), _completeness(experiment)]
    for domain, title in experiment.domains.items():
        where = f"on “{title}”"
        main = metric(experiment.metrics[0]).title
        parts += _titled(f"Results {where}, %", tables.results(experiment, domain))
        parts += _titled(f"{_capital(main)} over training-set sizes, {where}, %", tables.sizes(experiment, domain))
        parts += _titled(f"Stability of {main} over seeds, {where}, %", tables.stability(experiment, domain))
    parts += _titled("Paired differences, percentage points", tables.differences(experiment))
    parts += _titled("What the runs cost", tables.costs(experiment))
    parts += [f"![{_capital(_shown(link))}: {content['title']}]({link})" for link in links]
    parts.append(str(content.get("notes", "")).strip())
    return "\n\n".join(part for part in parts if part)


def _completeness(experiment: Experiment) -> str:
    seeds = len(experiment.content["seeds"])
    if experiment.found < experiment.planned:
        return (
            f"**Incomplete: {experiment.found} of {experiment.planned} runs are recorded.** What is missing is left "
            "out below, and intervals rest on the seeds that there are."
        )
    return f"{experiment.planned} runs, {seeds} seed{'s' * (seeds > 1)} each."


def _titled(title: str, table: str) -> list[str]:
    return [f"**{title}**", table] if table else []


def _shown(link: str) -> str:
    return "accuracy over training-set sizes" if link.endswith("_sizes.svg") else "learning curves"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _tuning(study: Mapping[str, Any], records: Sequence[Record]) -> str:
    parts: list[str] = []
    for testbed, tuning in study.get("tuning", {}).items():
        if found := tables.tuning(study, testbed, records):
            parts += [
                *_titled(f"Testbed: {testbed}, seed {tuning['seed']}", found),
                tables.shared_rates(study, testbed),
            ]
    if not parts:
        return ""
    text = (
        "Each variant was trained once at each of the learning rates below, and took the one with the best score on "
        "validation data (bold; the lower rate of equals). The test split was never touched by these runs: their "
        "records hold no outcome of a test. Scores in %, in brackets the CPU time of training."
    )
    return "\n\n".join(part for part in ("## How the learning rates were chosen", text, *parts) if part)
