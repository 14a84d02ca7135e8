"""Callbacks that show and write results: sampled completions, predictions, metrics, skipped images."""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.csv_logs import ExperimentWriter
from lightning.pytorch.utilities import rank_zero_warn
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dermiq.files import PARTIAL, append_lines, whole_lines, write_atomically
from dermiq.metrics import NO_ANSWER, EvaluationOutput, PredictionRow, named_classes
from dermiq.metrics.summary import DIAGNOSIS
from dermiq.objectives.scored import ScoredRollout
from dermiq.policy.rollout import Rollout
from dermiq.ranges import check_numbers
from dermiq.rewards import Scores
from dermiq.run_directory import RunDirectory


class RunProgressBar(RichProgressBar):
    """Lightning's Rich progress bar with short names: reward, accuracy, tokens per second; loss."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """The metrics to show."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name.removeprefix("train/"): value for name, value in metrics.items() if name != "v_num"}


class MetricsTable(CSVLogger):
    """CSV logger whose ``metrics.csv`` survives a kill, also while a new metric adds a column."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file; unfinished files of a killed run are removed."""
        if self._experiment is None:
            for unfinished in Path(self.root_dir).glob(f"*/*{PARTIAL}"):
                unfinished.unlink(missing_ok=True)
            self._experiment = _WholeTables(log_dir=self.log_dir)
        return self._experiment


class _WholeTables(ExperimentWriter):
    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Lightning empties the file before it writes the rows again."""
        with open(self.metrics_file_path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, fieldnames)
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.metrics_file_path, table.getvalue())


class LogCompletions(Callback):
    """A table of sampled completions with their rewards: on the console, and as Parquet in ``completions/``.

    Args:
        every_n_steps: optimiser steps between two tables.
        shown: completions of the first prompt to show on the console.
    """

    def __init__(self, every_n_steps: int = 50, shown: int = 3) -> None:
        self.every_n_steps = every_n_steps
        self.shown = shown
        self._logged_step = -1
        check_numbers(self, every_n_steps="[1, inf)", shown="[0, inf)")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run has the table of the step that it begins with."""
        self._logged_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Write the table of this step where one is due."""
        step = trainer.global_step
        due = step % self.every_n_steps == 0 and step != self._logged_step
        if not due or not trainer.is_global_zero or not isinstance(outputs, dict) or "rollout" not in outputs:
            return
        self._logged_step = step
        found = cast(ScoredRollout, outputs)
        rows = completion_rows(found["rollout"], found["scores"], found["advantages"].tolist())
        table = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(rows), table)
        write_atomically(RunDirectory(trainer.default_root_dir).completions_of(step), table.getvalue())
        Console().print(_table(rows[: self.shown], f"step {step}: {rows[0]['id']}, target {rows[0]['target']}"))


def completion_rows(rollout: Rollout, scores: Scores, advantages: list[list[float]]) -> list[dict[str, Any]]:
    """One row per completion of a rollout: id, target, completion, advantage, reward and its terms.

    A term that does not apply is None.
    """
    return [
        {
            "id": sample.id,
            "target": sample.target,
            "completion": answer.text,
            "advantage": advantages[i][j],
            "reward": float(scores.total[i, j]),
            **{
                f"reward/{name}": None if term[i, j].isnan() else float(term[i, j])
                for name, term in scores.by_term.items()
            },
        }
        for i, sample in enumerate(rollout.samples)
        for j, answer in enumerate(rollout.answers[i])
    ]


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table("completion", "advantage", "reward", "by term", title=title, title_justify="left")
    for row in rows:
        found = {key: row[key] for key in row if key.startswith("reward/") and row[key] is not None}
        terms = (f"{key.removeprefix('reward/')} {value:.2f}" for key, value in found.items())
        values = (row["completion"], f"{row['advantage']:+.2f}", f"{row['reward']:.2f}", "\n".join(terms))
        table.add_row(*map(Text, values))
    return table


class WritePredictions(Callback):
    """The rows of test as ``predictions.parquet`` and ``confusion.csv``, those of predict as ``predictions.jsonl``.

    Rows are appended as batches finish, so that an interrupted run keeps what it has; those of test to
    ``test_predictions.jsonl``, which gives way to the tables at the end. With several processes each appends to a file
    of its own, and the tables are of all rows, in the order of the data.
    """

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new file."""
        self._begin(RunDirectory(trainer.default_root_dir).predicted_lines(trainer.global_rank, trainer.world_size))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a new file."""
        self._begin(RunDirectory(trainer.default_root_dir).tested_lines(trainer.global_rank, trainer.world_size))

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Append the batch's rows."""
        output: EvaluationOutput = outputs
        append_lines(self.path, (json.dumps(row, ensure_ascii=False) for row in output["rows"]))

    on_test_batch_end = on_predict_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the tables of all processes' rows."""
        trainer.strategy.barrier("predictions")
        if not trainer.is_global_zero:
            return
        run = RunDirectory(trainer.default_root_dir)
        paths = [run.tested_lines(rank, trainer.world_size) for rank in range(trainer.world_size)]
        rows: list[PredictionRow] = [json.loads(line) for path in paths for line in whole_lines(path)]
        if len(paths) > 1:
            data: Any = trainer.test_dataloaders.dataset  # type: ignore[union-attr]  # set by now
            places = {data.source[index].id: place for place, index in enumerate(data.indices)}
            rows.sort(key=lambda row: places[row["id"]])
        write_atomically(run.predictions, predictions_table(rows))
        write_atomically(run.confusion, confusion_table(rows))
        for path in paths:
            path.unlink()

    def _begin(self, path: Path) -> None:
        self.path = path
        write_atomically(path, "")


def predictions_table(rows: Sequence[PredictionRow]) -> bytes:
    """Rows of predictions as Parquet, with flat columns.

    What a row holds in a mapping gets a column for each name, called as in the metrics: ``reward/NAME`` for the
    ``scores``, ``sampled_NAME`` for ``sampled``, ``skin_type_NAME`` and so on for others. A row without a value
    has a null.
    """
    flat = [dict(_flat(row)) for row in rows]
    names = dict.fromkeys(name for row in flat for name in row)
    file = io.BytesIO()
    table = pa.table({name: [row.get(name) for row in flat] for name in names})
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def _flat(row: PredictionRow) -> Iterator[tuple[str, Any]]:
    for key, value in row.items():
        if isinstance(value, dict):
            prefix = "reward/" if key == "scores" else f"{key}_"
            yield from ((prefix + name, each) for name, each in value.items())
        else:
            yield key, value


def confusion_table(rows: Sequence[PredictionRow]) -> str:
    """CSV of how often each condition (line) was named as each (column) by the judged answer to a diagnosis.

    The columns are the conditions that occur as targets, ``other`` for names of none of them, and ``none`` for
    answers without the structure asked for.
    """
    diagnoses = [row for row in rows if row["kind"] == DIAGNOSIS]
    pairs = Counter(zip((row["target"] for row in diagnoses), named_classes(diagnoses), strict=True))
    conditions = sorted({target for target, _ in pairs})
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["target", *conditions, "other", "none"])
    for target in conditions:
        counts = [pairs[target, named] for named in conditions]
        none = pairs[target, NO_ANSWER]
        total = sum(count for (true, _), count in pairs.items() if true == target)
        writer.writerow([target, *counts, total - sum(counts) - none, none])
    return file.getvalue()


class SaveMetrics(Callback):
    """The metrics of test as ``metrics.json`` in the run's directory, those of validate as ``val_metrics.json``.

    One that is not a number on these data (a rate of no cases) is left out, since JSON has no word for it.
    """

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file."""
        self._write(trainer, RunDirectory(trainer.default_root_dir).metrics_file)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the file, unless this validation is a part of training."""
        if trainer.state.fn == "validate":
            self._write(trainer, RunDirectory(trainer.default_root_dir).validation_file)

    def _write(self, trainer: Trainer, path: Path) -> None:
        if trainer.is_global_zero:
            metrics = {key: float(value) for key, value in trainer.callback_metrics.items()}
            known = {key: value for key, value in metrics.items() if math.isfinite(value)}
            content = json.dumps(known, indent=2, sort_keys=True, allow_nan=False) + "\n"
            write_atomically(path, content)


class ReportSkipped(Callback):
    """Counts the images that ``on_bad_image: skip`` left out, and lists them in ``skipped.txt``."""

    def __init__(self) -> None:
        self.skipped: dict[str, None] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take what the data module left out already."""
        left_out: list[str] = getattr(trainer.datamodule, "left_out", [])  # type: ignore[attr-defined]
        self.skipped |= dict.fromkeys(left_out)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remember what the batch skipped."""
        self.skipped |= dict.fromkeys(batch["skipped"])

    on_validation_batch_end = on_test_batch_end = on_predict_batch_end = on_train_batch_end

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Report."""
        if self.skipped and trainer.is_global_zero:
            path = RunDirectory(trainer.default_root_dir).skipped
            write_atomically(path, "".join(f"{line}\n" for line in self.skipped))
            rank_zero_warn(f"Skipped {len(self.skipped)} samples with unreadable images; they are listed in {path}.")

    def state_dict(self) -> dict[str, Any]:
        """What was skipped so far, for the run that goes on from this checkpoint."""
        return {"skipped": list(self.skipped)} if self.skipped else {}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Take up what the run had skipped before, where it is this run that goes on."""
        if trainer.state.fn == "fit":
            self.skipped |= dict.fromkeys(checkpoint["callbacks"].get(self.state_key, {}).get("skipped", []))
