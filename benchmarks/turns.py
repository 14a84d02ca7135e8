"""DermIQ's `fit` and a TRL trainer, step by step in turn, each with its own adapter and optimiser."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from measuring import summary
from torch import Tensor
from torch.utils.data import DataLoader

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.trl import adapter_weights, difference, quiet_trainer

MAX_NORM = 1.0
adamw = partial(torch.optim.AdamW, lr=1e-5)


class TakeTurns(Callback):
    """After each step of DermIQ's `fit`, one step of TRL's trainer, both timed.

    Args:
        trainer: TRL's, on its own copy of the policy.
        inputs: makes a batch as its collator would, in new tensors.
    """

    def __init__(self, trainer: Any, inputs: Callable[[], dict[str, Tensor]]) -> None:
        self.trl, self.inputs = trainer, inputs
        self.weights = adapter_weights(trainer.model)
        self.optimizer = adamw(self.weights.values())
        self.seconds: dict[str, list[float]] = {"dermiq": [], "trl": []}
        self.losses: dict[str, list[float]] = {"dermiq": [], "trl": []}
        self.gradients: dict[str, Tensor] = {}
        self.gradient_difference = float("nan")

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the first gradient."""
        if not self.gradients:
            self.gradients = {name: weight.grad.clone() for name, weight in adapter_weights(pl_module).items()}

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Stop the clock, and let TRL take its step: forward passes, backward, clipping, optimiser."""
        self.seconds["dermiq"].append(time.perf_counter() - self.start)
        self.losses["dermiq"].append(outputs["loss"].item())
        inputs = self.inputs()
        start = time.perf_counter()
        loss = self.trl.training_step(self.trl.model, inputs, None)
        if trainer.global_step == 1:
            found = {name: weight.grad for name, weight in self.weights.items()}
            self.gradient_difference = difference(self.gradients, found)
        torch.nn.utils.clip_grad_norm_(self.weights.values(), MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds["trl"].append(time.perf_counter() - start)
        self.losses["trl"].append(loss.item())


def take_turns(
    module: LightningModule, batches: list[dict[str, Any]], trainer: Any, inputs: Callable[[], dict[str, Tensor]]
) -> dict[str, Any]:
    """Train on `batches` in turn with TRL; the first step warms up.

    Returns:
        `seconds` (medians and all values), `trl_over_dermiq` (ratios of steps side by side) and `agreement`.
    """
    turns = TakeTurns(trainer, inputs)
    loader = DataLoader(batches, batch_size=None)
    quiet_trainer(max_epochs=1, limit_val_batches=0, callbacks=[turns]).fit(module, loader, loader)
    seconds = {path: summary(values[1:]) for path, values in turns.seconds.items()}
    pairs = zip(seconds["trl"]["all"], seconds["dermiq"]["all"], strict=True)
    losses = list(zip(turns.losses["dermiq"], turns.losses["trl"], strict=True))
    return {
        "seconds": seconds,
        "trl_over_dermiq": summary([slow / fast for slow, fast in pairs]),
        "agreement": {
            "first_losses": dict(zip(("dermiq", "trl"), losses[0], strict=True)),
            "first_relative_gradient_difference": turns.gradient_difference,
            "max_abs_loss_difference": max(abs(a - b) for a, b in losses),
        },
    }
