"""A worst-case training step without side effects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import ParallelStrategy
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor

from dermiq.modules import GRPOModule, StageModule
from dermiq.objectives.advantages import Graded


def worst_step(trainer: Trainer, module: StageModule, batch: Mapping[str, Any]) -> Any:
    """Forward and backward as in training, on a batch of the data module; returns what `training_step` does.

    Processes exchange nothing, so that one may run out of memory without the others waiting for it.
    """
    strategy = trainer.strategy
    alone = strategy.block_backward_sync() if isinstance(strategy, ParallelStrategy) else nullcontext()
    moved = strategy.batch_to_device(strategy.precision_plugin.convert_input(batch), dataloader_idx=0)
    with _without_side_effects(module), alone:
        output = strategy.training_step(moved, 0)
        if module.automatic_optimization and isinstance(output, Tensor):
            strategy.backward(output / module.accumulated_batches, None)
    return output


@contextmanager
def _without_side_effects(module: StageModule) -> Iterator[None]:
    """Make a training step its worst case, and undo its side effects."""
    backbone = module.backbone
    changed: dict[str, Any] = {
        "log": _nothing,
        "log_dict": _nothing,
        "world_scale": torch.ones_like,
        "optimizers": _Idle,
        "lr_schedulers": _nothing,
    }
    if isinstance(module, GRPOModule):  # a uniform group may have no advantage, and so no backward pass
        changed |= {"advantage": _alternating, "sampling": replace(module.sampling, stop=())}
    training, buffers = backbone.training, [(buffer, buffer.clone()) for buffer in module.buffers()]
    with isolate_rng(), _replaced(module, **changed), _replaced(backbone, sync_reference=_nothing):
        backbone.train()
        backbone.banned[list(backbone.stop_ids)] = True
        try:
            yield
        finally:
            for buffer, former in buffers:
                buffer.copy_(former)
            for parameter in module.parameters():
                parameter.grad = None
            backbone.train(training)


class _Idle:
    """Stands in for the optimiser."""

    def step(self) -> None: ...

    def zero_grad(self) -> None: ...


def _nothing(*_: Any, **__: Any) -> None: ...


def _alternating(graded: Graded) -> Tensor:
    """Advantages of 1 and -1 in turn, [B, G] as the rewards."""
    return (1.0 - 2.0 * (torch.arange(graded.rewards.shape[1]) % 2)).expand_as(graded.rewards)


@contextmanager
def _replaced(target: object, **values: Any) -> Iterator[None]:
    """Give an object other attributes for a while; those of its class are covered."""
    own = {name: vars(target)[name] for name in values if name in vars(target)}
    for name, value in values.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name in values:
            delattr(target, name)
        for name, value in own.items():
            setattr(target, name, value)
