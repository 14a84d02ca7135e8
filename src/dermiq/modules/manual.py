"""Manual optimisation: stages whose optimiser step takes several backward passes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from dermiq.modules.base import StageModule
from dermiq.ranges import check_numbers


class ManualStage(StageModule):
    """A stage that runs backward and steps by itself.

    So `trainer.accumulate_grad_batches` and `trainer.gradient_clip_val` do not apply: `accumulate_batches` and
    `max_grad_norm` take their place, and `trainer.max_steps` counts optimiser steps.

    Args:
        accumulate_batches: batches that share one optimiser step.
        stage: arguments of `StageModule`.
    """

    def __init__(self, *args: Any, accumulate_batches: int = 1, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.accumulate_batches = accumulate_batches
        self._logged: set[str] = set()
        check_numbers(self, accumulate_batches="[1, inf)")

    @property
    def accumulated_batches(self) -> int:
        """Batches that share one optimiser step."""
        return self.accumulate_batches

    def _is_update_batch(self, batch_idx: int) -> bool:
        """True for the last batch of an optimiser step."""
        return (batch_idx + 1) % self.accumulate_batches == 0 or self.trainer.is_last_batch

    def _backward_locally(self, loss: Tensor) -> None:
        """Run backward without exchanging gradients between processes, which the step's last pass does for all."""
        with self._without_synchronisation():
            self.manual_backward(loss)

    def _backward_last(self, loss: Tensor, is_update_batch: bool) -> None:
        """Run backward, and exchange gradients if a step follows."""
        with nullcontext() if is_update_batch else self._without_synchronisation():
            self.manual_backward(loss)

    def _without_synchronisation(self) -> AbstractContextManager[Any]:
        strategy = self.trainer.strategy
        return strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()

    def _step(self) -> None:
        """Clip the gradient (`on_before_optimizer_step`), step, and advance the schedule."""
        optimizer, scheduler = self.optimizers(), self.lr_schedulers()
        optimizer.step()  # type: ignore[union-attr]
        optimizer.zero_grad()  # type: ignore[union-attr]
        if scheduler is not None:
            self.lr_scheduler_step(scheduler, None)

    def _skip(self, steps: int) -> None:
        """Take part in the steps that the other processes make of their batches."""
        zero = self.no_loss()
        for _ in range(steps):
            if zero is not None:
                self.manual_backward(zero, retain_graph=True)
            self._step()

    def _log(self, values: dict[str, float], shown: Sequence[str], batch_size: int) -> None:
        """Log the step's values alone: Lightning would repeat the last ones of a name that has none in this step.

        Args:
            values: by name, without ``train/``.
            shown: names of those that stand beside the progress bar.
            batch_size: samples.
        """
        # Lightning makes tensors of numbers in the default dtype, which bf16-true changes.
        points = {f"train/{name}": torch.tensor(value, dtype=torch.float32) for name, value in values.items()}
        for name in self._logged - points.keys():
            self.trainer._results.pop(f"training_step.{name}", None)  # type: ignore[union-attr]  # set in training
        self._logged |= points.keys()
        beside_bar = {name: points.pop(name) for name in (f"train/{name}" for name in shown)}
        self.log_dict(points, batch_size=batch_size)
        self.log_dict(beside_bar, prog_bar=True, batch_size=batch_size)
