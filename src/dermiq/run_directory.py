"""The directory of a run: the names of its files, and what can be read of them without a heavy library."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from dermiq.files import regular_bytes
from dermiq.programs.exits import reason
from dermiq.programs.yaml_files import read_yaml
from dermiq.schema import DataError

ADAPTER_CONFIG = "adapter_config.json"
AGAIN = "Test it again."
_LARGEST = 1e30  # value that a chart can show
_LAST = 2**53  # step, up to which a float counts

Curve = list[tuple[int, float]]


class RunDirectory:
    """The files of a run, by the names that no other module knows; whether they are there is another question.

    Args:
        path: of the directory, ``trainer.default_root_dir``.

    Attributes:
        adapter: folder of what was trained, in PEFT's format, for the next stage.
        config_file: the configuration that `fit` ran with.
        checkpoints: folder of what `fit` resumes from.
        last_checkpoint: its newest file.
        metrics_file: the metrics of `test`.
        validation_file: the metrics of `validate`.
        predictions: a table with a row for each answer of `test`.
        confusion: a table of targets and named conditions.
        thumbnails: a table of the images of `test`, made small.
        logs: folder of Lightning's tables of metrics, one for each start of `fit`.
        tensorboard: folder of the same for TensorBoard.
        completions: folder of tables of sampled completions.
        skipped: a list of the images that could not be read.
        candidates: sampled answers that preference pairs are formed of.
        preferences: those pairs.
        accepted: correct sampled answers, for fine-tuning.
        images: folder of images that are no files elsewhere.
        earlier: folder of earlier runs and results, numbered.
        lock: held by the process that writes here.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path = Path(path)
        self.adapter = path / "adapter"
        self.config_file = path / "config.yaml"
        self.checkpoints = path / "checkpoints"
        self.last_checkpoint = self.checkpoints / "last.ckpt"
        self.metrics_file = path / "metrics.json"
        self.validation_file = path / "val_metrics.json"
        self.predictions = path / "predictions.parquet"
        self.confusion = path / "confusion.csv"
        self.thumbnails = path / "thumbnails.parquet"
        self.logs = path / "metrics"
        self.tensorboard = path / "tensorboard"
        self.completions = path / "completions"
        self.skipped = path / "skipped.txt"
        self.candidates = path / "candidates.jsonl"
        self.preferences = path / "preferences.jsonl"
        self.accepted = path / "accepted.jsonl"
        self.images = path / "images"
        self.earlier = path / "earlier"
        self.lock = path / ".run.lock"

    def completions_of(self, step: int) -> Path:
        """The table of the completions sampled at an optimiser step."""
        return self.completions / f"step-{step:07d}.parquet"

    def predicted_lines(self, rank: int = 0, processes: int = 1) -> Path:
        """The answers of `predict`, one file for each process."""
        return self._of_process("predictions", rank, processes)

    def tested_lines(self, rank: int = 0, processes: int = 1) -> Path:
        """The answers of `test` as long as it runs, likewise."""
        return self._of_process("test_predictions", rank, processes)

    def thumbnail_lines(self, rank: int = 0, processes: int = 1) -> Path:
        """The images of `test` as long as it runs, likewise."""
        return self._of_process("test_thumbnails", rank, processes)

    def _of_process(self, stem: str, rank: int | str, processes: int) -> Path:
        return self.path / f"{stem}{'' if processes == 1 else f'.rank{rank}'}.jsonl"

    def _of_all_processes(self, stem: str) -> list[Path]:
        return [self._of_process(stem, 0, 1), *sorted(self.path.glob(self._of_process(stem, "*", 2).name))]

    def results(self, *subcommands: str) -> list[Path]:
        """What `test`, `validate` or `predict` write, each or together; of all three without a name."""
        tables = [self.metrics_file, self.predictions, self.confusion, self.thumbnails]
        under_way = [*self._of_all_processes("test_predictions"), *self._of_all_processes("test_thumbnails")]
        found = {
            "test": [*tables, *under_way],
            "validate": [self.validation_file],
            "predict": self._of_all_processes("predictions"),
        }
        return [path for name in subcommands or found for path in found[name]]

    @property
    def records(self) -> list[Path]:
        """What `fit` writes beside what it trains."""
        return [self.logs, self.tensorboard, self.completions, self.skipped]

    @property
    def trained(self) -> list[Path]:
        """What `fit` trains, the checkpoints last."""
        return [self.adapter, *self.requeued_checkpoints, self.checkpoints]

    @property
    def requeued_checkpoints(self) -> list[Path]:
        """Lightning's own checkpoints from when SLURM put the job back into its queue."""
        return sorted(self.path.glob("hpc_ckpt_*.ckpt"))

    def config(self) -> Any:
        """The configuration that `fit` ran with.

        Raises:
            FileNotFoundError: if it is not there.
            DermIQError: if it is no YAML.
        """
        return read_yaml(self.config_file)

    def metrics(self) -> dict[str, float]:
        """The metrics of `test`.

        Raises:
            FileNotFoundError: if they are not there.
            DermIQError: if they cannot be read, or are not an object of finite numbers.
        """
        path = self.metrics_file
        content = regular_bytes(path)
        try:
            found = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise unreadable(path, error) from error
        if not isinstance(found, dict):
            raise DataError(f"{path} holds no names with numbers, but a {type(found).__name__}. {AGAIN}")
        return {name: _number(path, name, value) for name, value in found.items()}

    def curves(self, names: Collection[str]) -> dict[str, Curve]:
        """Training curves: name -> its (step, value) pairs, a resumed run's after its beginning's.

        What was logged from the step on that a later part begins with was abandoned: it is no part of the curve. So is
        what no chart can show (NaN, 1e300).

        Raises:
            DataError: if a file is not a table of Lightning's CSV logger.
        """
        tables = [path for folder in self.logs.glob("version_*") if os.path.lexists(path := folder / "metrics.csv")]
        curves: dict[str, Curve] = {}
        for path in sorted(tables, key=lambda path: (len(path.parent.name), path.parent.name)):
            try:
                logged = list(_logged(path, names))
            except (OSError, ValueError, TypeError, csv.Error) as error:
                raise DataError(
                    f"{path} is no table of metrics that can be read ({reason(error)}). Mend it or move it away."
                ) from error
            if logged:
                begins = min(step for _, step, _ in logged)
                curves = {name: [point for point in curve if point[0] < begins] for name, curve in curves.items()}
            for name, step, value in logged:
                curves.setdefault(name, []).append((step, value))
        return curves


def found_adapter(path: str | Path) -> Path | None:
    """The adapter's directory, given itself, its run's directory or a file in either; None if there is none."""
    given = Path(path).expanduser()
    if not given.exists():
        return None
    folder = given if given.is_dir() else given.parent
    places = [folder, RunDirectory(folder).adapter]
    if folder == RunDirectory(folder.parent).checkpoints:
        places.append(RunDirectory(folder.parent).adapter)
    return next((place for place in places if (place / ADAPTER_CONFIG).is_file()), None)


def no_adapter(path: str | Path) -> str:
    """The message for a path that holds no adapter."""
    given = Path(path).expanduser()
    folder = given if given.is_dir() else given.parent
    above = RunDirectory(folder.parent)
    run = above if folder in (above.checkpoints, above.adapter) else RunDirectory(folder)
    if given.exists() and run.config_file.is_file():
        return (
            f"The run {run.path} has no adapter/ yet: it is written with the first checkpoint. Train it further, or "
            "name another run with --model.backbone.adapter_path."
        )
    return f"{path} holds no {ADAPTER_CONFIG}. adapter_path takes the adapter/ of a stage's run."


def hand_over(checkpoint: str | Path | None) -> str:
    """The option that takes the adapter beside a checkpoint."""
    found = found_adapter(checkpoint) if checkpoint else None
    return f"--model.backbone.adapter_path={found or RunDirectory('RUN').adapter}"


def is_adapter_file(path: str | Path) -> bool:
    """True for a file in an adapter's directory."""
    return (Path(path).parent / ADAPTER_CONFIG).is_file()


def no_checkpoint(path: str | Path) -> str:
    """The message for a path that is no checkpoint file, but a run, an adapter or nothing at all."""
    given = Path(path).expanduser()
    folder = given if given.is_dir() else given.parent
    if (folder / ADAPTER_CONFIG).is_file():
        return f"{path} is an adapter and no checkpoint. To go on from it: {hand_over(given)}"
    checkpoint = RunDirectory(given).last_checkpoint
    for place in (checkpoint, given / checkpoint.name):
        if place.is_file():
            return f"{path} is a directory. Its checkpoint: --ckpt_path={place}"
    if given.is_dir():
        return f"{path} is a directory and no checkpoint. Name the file, or a run with --ckpt_path=last."
    return (
        f"There is no checkpoint {path}. Leave --ckpt_path out to start anew, or name the run's directory with "
        "--trainer.default_root_dir."
    )


def unreadable(path: Path, error: BaseException) -> DataError:
    """The error for a file of a test that cannot be read."""
    return DataError(f"{path} cannot be read ({reason(error)}). {AGAIN}")


def _number(path: Path, name: str, value: Any) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except OverflowError:
        pass
    raise DataError(f"{path}: {name} is {str(value)[:40]!r}, which is no finite number. {AGAIN}")


def _logged(path: Path, names: Collection[str]) -> Iterator[tuple[str, int, float]]:
    """Name, step and value of what was logged, without what no chart can show."""
    table = csv.DictReader(regular_bytes(path).decode().splitlines())
    if table.fieldnames is not None and "step" not in table.fieldnames:
        raise ValueError("it has no column step")
    for line in table:
        for name in names:
            if line.get(name) and abs(value := float(line[name])) <= _LARGEST:
                step = int(line["step"])
                if not 0 <= step <= _LAST:
                    raise ValueError(f"no run has a step {line['step'][:40]}")
                yield name, step, value if abs(value) > 1 / _LARGEST else 0.0
