"""Split data sets once for all stages, without leaks between the splits.

``python -m dermiq.datamodules.splits --config splits.yaml --out split.parquet``; see docs/data_splits.md.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import yaml
from jsonargparse import ArgumentParser, Namespace
from rich.console import Console
from rich.table import Table

from dermiq.datamodules.base import FRACTIONS
from dermiq.datamodules.sample_table import SampleTable
from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.splits.clusters import Numbers, Tie, cluster_names, group_tie, link_tie, union
from dermiq.datamodules.splits.duplicates import listed_tie
from dermiq.datamodules.splits.file import write_split
from dermiq.datamodules.splits.leaks import SEEDS, Leak, leaks_by_cause
from dermiq.datamodules.splits.perceptual import near_duplicates
from dermiq.datamodules.splits.stratified import joined, shares_in_words, split_by_group
from dermiq.programs.exits import exit_codes
from dermiq.programs.options import OneLine
from dermiq.schema import DataError

_SHOWN = 5


def make_split(
    sources: list[Source],
    out: Path,
    fractions: dict[str, float] = FRACTIONS,
    seed: int = 0,
    duplicates: list[str] | None = None,
    perceptual_distance: int | None = None,
    processes: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a split file without leaks, and report what a random split would have leaked.

    Samples that share a group or a link form a cluster, and so do known duplicates and near-duplicate images. Whole
    clusters are allocated by `fractions`, stratified by target, skin type and data set.

    Args:
        sources: the data sets.
        out: the split file, Parquet with the columns dataset, id, group and split.
        fractions: split -> fraction of the samples; the split to train on first, the one to test on last.
        seed: another seed gives another split.
        duplicates: CSV files with the ids of duplicates in each row, or with one id and a column ``cluster``.
        perceptual_distance: link images whose hashes differ in at most so many of 256 bits; none: do not open images.
        processes: to hash images in; none: one per processor.
        settings: what to keep in the file's metadata beside the leaks.

    Raises:
        DataError: if a source or a list cannot be used, or a split stays empty.
    """
    if not sources or len(fractions) < 2:
        raise DataError("a split needs at least one source in `sources`, and at least two shares in `fractions`.")
    for source in sources:
        source.load()
    samples = SampleTable.concat([source.table() for source in sources])
    causes = {"group": group_tie(samples), "links": link_tie(samples)}
    if duplicates:
        causes["duplicates"] = listed_tie(duplicates, samples)
    if perceptual_distance is not None:
        causes["perceptual hash"] = _near_duplicates(sources, perceptual_distance, processes)
    groups = cluster_names(samples, union(len(samples), causes.values()))
    within = joined(samples, ("skin_type", "dataset"))
    splits = split_by_group(groups, samples.strings("target"), fractions, seed, within)
    leaks = leaks_by_cause(len(samples), causes, fractions)
    kept = {**(settings or {}), "leaks": {cause: leak._asdict() for cause, leak in leaks.items()}}
    write_split(out, samples, groups, splits, kept)
    _report(samples, len(pc.unique(groups)), splits, leaks)


def _near_duplicates(sources: Sequence[Source], distance: int, processes: int | None) -> Tie:
    tie, images, unreadable = near_duplicates(sources, distance, processes)
    if unreadable:
        shown = "; ".join(unreadable[:_SHOWN]) + ("; ..." if len(unreadable) > _SHOWN else "")
        logging.getLogger(__name__).warning(
            "%d of %d images cannot be opened and were not compared: %s", len(unreadable), images, shown
        )
    return tie


def _report(samples: SampleTable, clusters: int, splits: Mapping[str, Numbers], leaks: Mapping[str, Leak]) -> None:
    """Print the sizes of the splits, and the leaks of a random split."""
    console = Console(highlight=False)
    console.print(f"{len(samples):,} samples in {clusters:,} clusters:")
    table = Table()
    for heading in ("split", "samples", "share", "targets", "skin types known"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for name, chosen in splits.items():
        part = samples.take(chosen)
        known = pc.sum(pc.not_equal(part.strings("skin_type"), "")).as_py()
        targets = len(pc.unique(part.strings("target")))
        table.add_row(name, f"{len(part):,}", f"{len(part) / len(samples):.1%}", f"{targets:,}", f"{known:,}")
    console.print(table)
    console.print(f"Split: {shares_in_words({name: len(chosen) for name, chosen in splits.items()})}.", soft_wrap=True)
    learned, *_, tested = splits
    console.print(f"Had single samples been split at random, share of {tested} with a companion in {learned}:")
    table = Table()
    for heading in ("tied by", "mean", f"sd of {SEEDS} seeds"):
        table.add_column(heading, justify="left" if heading == "tied by" else "right")
    for cause, leak in leaks.items():
        table.add_row(cause, f"{leak.mean:.1%}", f"{100 * leak.sd:.1f}")
    console.print(table)


class Parser(OneLine, ArgumentParser):
    """jsonargparse's parser with errors of one line."""


def parser() -> Parser:
    """The command line."""
    top = Parser(prog="python -m dermiq.datamodules.splits", description=__doc__)
    top.add_argument("--config", action="config", help="YAML file with any of the options below")
    top.add_function_arguments(make_split, skip={"settings"}, fail_untyped=True)
    return top


def main(arguments: Sequence[str] | None = None) -> None:
    """Make a split file."""
    commands = parser()
    options = commands.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    settings = yaml.safe_load(commands.dump(options))
    ready: Namespace = commands.instantiate(options)
    given: dict[str, Any] = {name: value for name, value in vars(ready).items() if name != "config"}
    make_split(**given, settings=settings)
    print(f"Wrote {ready.out}.")


if __name__ == "__main__":
    with exit_codes():
        main()
