"""Rewards, advantages and callbacks that configurations of tests name."""

from __future__ import annotations

import os
import signal
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from dermiq.advantages import Advantage, Graded
from dermiq.schema import Answer, Sample


def letters(answer: Answer, sample: Sample) -> float:
    """Something that an untrained model earns by chance: differs between completions."""
    return min(len(set(answer.text)), 20) / 20


def raising(answer: Answer, sample: Sample) -> float:
    """A broken reward."""
    raise KeyError("no such concept")


def no_number(answer: Answer, sample: Sample) -> float:
    """Another broken reward."""
    return float("nan")


class Infinite(Advantage):
    """A broken advantage."""

    def __call__(self, graded: Graded) -> Tensor:
        return torch.full_like(graded.rewards, torch.inf)


class InterruptAt(Callback):
    """Ctrl-C while batch number `batch` (from 0) of the first epoch runs."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 0 and batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGINT)


class WatchAdapter(Callback):
    """Refuses adapter weights or gradients that are not float32, or gradients that never come."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen: set[str] = set()
        self.start = {n: p.detach().clone() for n, p in self._trained(pl_module)}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for name, parameter in self._trained(pl_module):
            assert parameter.dtype == torch.float32, name
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
            if parameter.grad.abs().max() > 0:
                self.seen.add(name)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        now = dict(self._trained(pl_module))
        assert self.seen == now.keys() == self.start.keys()
        for name, parameter in now.items():
            assert parameter.dtype == torch.float32 and not torch.equal(parameter, self.start[name]), name

    def _trained(self, module: Any) -> list[tuple[str, Tensor]]:
        return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


class RecordingSGD(torch.optim.SGD):
    """SGD that leaves the weights alone, and keeps the gradient of every step."""

    def __init__(self, params: Any, lr: float = 0.0) -> None:
        super().__init__(params, lr=lr)
        self.steps: list[list[Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        self.steps.append([p.grad.clone() for group in self.param_groups for p in group["params"]])
        return result


def coin(answer: Answer, sample: Sample) -> float:
    """A diagnosis that is right by chance, as far as its text tells."""
    return float(sum(map(ord, answer.text)) % 3 == 0)
