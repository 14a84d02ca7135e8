"""Range checks of numbers of trainer, optimiser and schedule, whose classes are not ours."""

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
    """Check the trainer's numbers that Lightning accepts unchecked; -1 stands for no limit.

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
    """Check that an optimiser's rates are not negative and its numbers finite, which a schedule can change at any step.

    Raises:
        RangeError: naming the number.
    """
    for group in optimizer.param_groups:
        numbers = {name: value for name, value in group.items() if isinstance(value, int | float)}
        check_values(type(optimizer).__name__, numbers, dict.fromkeys(numbers, "(-inf, inf)") | _RATES)
