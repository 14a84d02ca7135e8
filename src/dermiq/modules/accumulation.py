"""Gradient accumulation with one denominator for all batches of an optimiser step, whatever each of them counts."""

from __future__ import annotations

from torch import Tensor, where

_NOTHING = 1e-6  # in place of a count of 0, whose gradients are 0


class Window:
    """The batches of one optimiser step, whose total count is known only with the last of them.

    Until then gradients add up in units of the first batch's count, a scale on which no precision overflows; a window
    of one batch needs no more. `scale` turns the sum into the mean over the total count.

    Args:
        unit: the count that gradients are measured in, float32; None before the first batch.
        total: the count of all batches so far.
    """

    def __init__(self, unit: Tensor | None = None, total: Tensor | None = None) -> None:
        self.unit = unit
        self.total = total

    def add(self, count: Tensor) -> Tensor:
        """Add a batch's count, and return the unit: that of the first batch whose count is above 0."""
        self.unit = count if self.unit is None else where(self.unit > 0, self.unit, count)
        self.total = count if self.total is None else self.total + count
        return self.unit.clamp(min=_NOTHING)

    @property
    def scale(self) -> Tensor | float:
        """Unit / total: the factor that turns the accumulated gradient into a mean."""
        if self.unit is None or self.total is None:
            return 1.0
        return self.unit / self.total.clamp(min=_NOTHING)

    def record(self) -> dict[str, Tensor]:
        """The arguments of a window that continues this one, for a checkpoint within it."""
        return {} if self.unit is None or self.total is None else {"unit": self.unit, "total": self.total}
