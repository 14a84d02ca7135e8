"""Tested runs: their metrics and rows, read from their directories."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from dermiq.metrics import PredictionRow
from dermiq.report.reading import read_rows
from dermiq.run_directory import RunDirectory
from dermiq.schema import DataError

Key = tuple[str, str]


@dataclass(frozen=True)
class TestedRun:
    """A run that was tested.

    Attributes:
        name: what to call it.
        metrics: its ``metrics.json``, without the prefix ``test/``.
        rows: its ``predictions.parquet``.
    """

    name: str
    metrics: dict[str, float]
    rows: tuple[PredictionRow, ...]

    @property
    def keys(self) -> list[Key]:
        """Data set and id of each sample."""
        return [(row["dataset"], row["id"]) for row in self.rows]

    def only(self, keys: Sequence[Key]) -> TestedRun:
        """The same run on some of its samples, in their order."""
        rows = dict(zip(self.keys, self.rows, strict=True))
        return replace(self, rows=tuple(rows[key] for key in keys))


def read_run(directory: Path, name: str) -> TestedRun:
    """Read the run in a directory, to be called `name`.

    Raises:
        DataError: if it was not tested, a file cannot be read, or two rows are of the same sample.
    """
    files = RunDirectory(directory)
    try:
        metrics, rows = files.metrics(), read_rows(files.predictions)
    except FileNotFoundError as error:
        raise DataError(
            f"{error.filename or files.predictions} is missing. Test the run first: `python cli.py test --config "
            f"{files.config_file} --ckpt_path last`, or, for a model that was not trained here, with "
            f"--trainer.default_root_dir={directory}."
        ) from error
    run = TestedRun(name, {metric.removeprefix("test/"): value for metric, value in metrics.items()}, rows)
    twice = [key for key, count in Counter(run.keys).items() if count > 1]
    if twice:
        raise DataError(
            f"{files.predictions} has several rows of the sample {twice[0][1]!r}, so that it is unclear which to "
            "compare with which. Give the samples of a data set ids of their own, and test the run again."
        )
    return run


def common_samples(runs: Sequence[TestedRun]) -> list[Key]:
    """The samples that all runs were tested on, in the order of the first.

    Raises:
        DataError: if there are none, or one id stands for different questions.
    """
    first, *others = runs
    shared = set(first.keys).intersection(*(run.keys for run in others))
    keys = [key for key in first.keys if key in shared]
    if not keys:
        raise DataError(
            f"{', '.join(run.name for run in runs)} have no sample in common, so that there is nothing to compare. "
            "Test them on the same data: the same source, split and limit."
        )
    for run in others:
        for one, other in zip(first.only(keys).rows, run.only(keys).rows, strict=True):
            check_same(first.name, one, run.name, other)
    return keys


def check_same(first: str, one: PredictionRow, second: str, other: PredictionRow) -> None:
    """Check that the rows of one id in two runs are of one sample.

    Raises:
        DataError: saying what differs.
    """
    for column in ("kind", "question", "target"):
        if one[column] != other[column]:
            raise DataError(
                f"sample {one['id']!r} is not the same in {first} and {second}: its {column} is "
                f"{one[column]!r} in the first and {other[column]!r} in the other. Test both on the same data."
            )
