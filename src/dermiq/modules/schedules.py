"""Learning-rate schedules, advanced once per optimiser step."""

from __future__ import annotations

from math import cos, pi

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class CosineWithWarmup(LambdaLR):
    """From 0 up to the optimiser's rate in a line, then down to 0 along half a cosine, where it stays.

    Args:
        optimizer: whose rate is scheduled.
        warmup_steps: of the line.
        total_steps: of line and cosine together.

    Raises:
        ValueError: unless 0 <= warmup_steps < total_steps.
    """

    def __init__(self, optimizer: Optimizer, warmup_steps: int, total_steps: int) -> None:
        if not 0 <= warmup_steps < total_steps:
            raise ValueError(f"a schedule needs 0 <= warmup_steps < total_steps; got {warmup_steps} and {total_steps}")

        def factor(step: int) -> float:
            if step < warmup_steps:
                return step / warmup_steps
            done = min(1.0, (step - warmup_steps) / (total_steps - warmup_steps))
            return 0.5 * (1.0 + cos(pi * done))

        super().__init__(optimizer, factor)
