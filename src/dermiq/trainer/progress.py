"""Progress in plain lines, where no terminal shows a bar."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Timer
from rich.console import Console

from dermiq.ranges import check_numbers

Done = tuple[float, float]  # how much is done, of how much


class ProgressLines(Callback):
    """Progress as plain lines where the output is no terminal (``nohup``, SLURM): step, metrics, time left.

    A line is printed as a step or a batch ends, by the first process alone. In a terminal there is the progress bar.

    Args:
        seconds: the least time between two lines.

    Raises:
        RangeError: if it is negative.
    """

    def __init__(self, seconds: float = 60.0) -> None:
        self.seconds = seconds
        check_numbers(self, seconds="[0, 1000000]")
        self._console: Console | None = None
        self._begun = self._printed = 0.0
        self._first: list[Done] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find out whether the output is a terminal."""
        console = Console(highlight=False, markup=False, soft_wrap=True)
        shows_bar = console.is_terminal or console.is_jupyter
        self._console = None if shows_bar or not trainer.is_global_zero else console

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begin(_trained(trainer))

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._begin([])

    on_predict_start = on_test_start

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, unless this validation is a part of training."""
        if trainer.state.fn == "validate":
            self._begin([])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Print the step, of how many, and the metrics of the progress bar."""
        if self._is_due():
            done = _trained(trainer)
            of = f" of {trainer.max_steps}" if trainer.max_steps > 0 else ""
            epoch = f"epoch {trainer.current_epoch}, " if (trainer.max_epochs or 0) != 1 else ""
            metrics = trainer.progress_bar_metrics.items()
            shown = [f"{name.removeprefix('train/')} {value:.4g}" for name, value in metrics if name != "v_num"]
            self._print(
                trainer, ", ".join([f"{epoch}step {trainer.global_step}{of}", *shown]), self._left(trainer, done)
            )

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print the batch, of how many."""
        self._batch(trainer, "validation batch", batch_idx, trainer.num_val_batches)

    def on_test_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print the batch, of how many."""
        self._batch(trainer, "batch", batch_idx, trainer.num_test_batches)

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Print the batch, of how many."""
        self._batch(trainer, "batch", batch_idx, trainer.num_predict_batches)

    def _begin(self, first: list[Done]) -> None:
        self._begun = self._printed = time.monotonic()
        self._first = first

    def _is_due(self) -> bool:
        return self._console is not None and time.monotonic() - self._printed >= self.seconds

    def _batch(self, trainer: Trainer, what: str, batch_idx: int, batches: Any) -> None:
        if self._is_due():
            done, of = batch_idx + 1, sum(batches)
            inside = trainer.state.fn == "fit"
            self._print(trainer, f"{what} {done} of {of}", None if inside else self._left(trainer, [(done, of)]))

    def _left(self, trainer: Trainer, done: list[Done]) -> float | None:
        """Seconds until the first of several ends is reached, at the pace so far; None where there is none."""
        first = self._first or [(0, of) for _, of in done]
        shares = [(now - then) / (of - then) for (now, of), (then, _) in zip(done, first, strict=True) if of > then]
        passed = time.monotonic() - self._begun
        left = [passed * (1 - share) / share for share in shares if share > 0]
        left += [rest for each in trainer.callbacks if isinstance(each, Timer) and (rest := each.time_remaining())]  # type: ignore[attr-defined]  # set by a connector
        return min(left, default=None)

    def _print(self, trainer: Trainer, text: str, left: float | None) -> None:
        assert self._console is not None and trainer.state.fn is not None
        self._printed = time.monotonic()
        name = f"{trainer.state.fn.value} {Path(trainer.default_root_dir).resolve().name}"
        rest = "" if left is None else f", {timedelta(seconds=round(left))} left"
        self._console.print(f"{name}: {text}{rest}")
        self._console.file.flush()


def _trained(trainer: Trainer) -> list[Done]:
    """Optimiser steps and batches, each with the number that training ends at, where it has such an end."""
    ends: list[Done] = []
    if trainer.max_steps > 0:
        ends.append((trainer.global_step, trainer.max_steps))
    epochs, batches = trainer.max_epochs or -1, trainer.num_training_batches
    if epochs > 0 and isinstance(batches, int):
        seen = trainer.fit_loop.epoch_loop.batch_progress.current.ready
        ends.append((trainer.current_epoch * batches + seen, epochs * batches))
    return ends
