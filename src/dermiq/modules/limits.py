"""Numbers of trainer, optimiser and schedule, whose classes are not ours, that turn training around or into nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from lightning.pytorch import Trainer
from torch.optim import Optimizer

from dermiq.ranges import check_values
from dermiq.schema import TrainingError

_TRAINER = {
    "max_steps": "[1, inf)",
    "max_epochs": "[1, inf)",
    "accumulate_grad_batches": "[1, inf)",
    "gradient_clip_val": "[0, inf)",  # 0 is none
    "limit_train_batches": "(0, inf)",
    "val_check_interval": "(0, inf)",
    "check_val_every_n_epoch": "[1, inf)",
    "log_every_n_steps": "[0, inf)",
}
_RATES = {"lr": "[0, inf)", "weight_decay": "[0, inf)"}

_Made = TypeVar("_Made")


def check_trainer(trainer: Trainer) -> None:
    """Refuse what Lightning lets through; -1 stands for no end.

    Raises:
        RangeError: naming the option.
    """
    values = {name: getattr(trainer, name) for name in _TRAINER}
    check_values("trainer", {k: v for k, v in values.items() if isinstance(v, int | float) and v != -1}, _TRAINER)


def made(what: str, make: Callable[[], _Made]) -> _Made:
    """An optimiser or a schedule.

    Raises:
        TrainingError: if its class refuses the arguments.
    """
    try:
        return make()
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise TrainingError(f"The {what} cannot be made: {error}. Correct --model.{what}.") from error


def check_rates(optimizer: Optimizer) -> None:
    """Refuse an optimiser that would climb, or whose numbers are not finite; a schedule can make it so in any step.

    Raises:
        RangeError: naming the number.
    """
    for group in optimizer.param_groups:
        numbers = {name: value for name, value in group.items() if isinstance(value, int | float)}
        check_values(type(optimizer).__name__, numbers, dict.fromkeys(numbers, "(-inf, inf)") | _RATES)
