"""One denominator for all batches that share an optimiser step, however many tokens or samples each of them has."""

from __future__ import annotations

from torch import Tensor, where

_NOTHING = 1e-6  # in place of a count of 0, whose gradients are 0


class Window:
    """The batches of one optimiser step: what they count together is known only with the last of them.

    Until then gradients add up as sums over the count of the first batch, a scale on which no precision overflows; a
    window of one batch needs no more. `scale` makes means over the whole count of them.

    Args:
        unit: the count that gradients are measured in, float32; None before the first batch.
        total: the count of all batches so far.
    """

    def __init__(self, unit: Tensor | None = None, total: Tensor | None = None) -> None:
        self.unit = unit
        self.total = total

    def add(self, count: Tensor) -> Tensor:
        """Take in a batch's count, and return the unit; a first batch without any leaves it to the next."""
        self.unit = count if self.unit is None else where(self.unit > 0, self.unit, count)
        self.total = count if self.total is None else self.total + count
        return self.unit.clamp(min=_NOTHING)

    @property
    def scale(self) -> Tensor | float:
        """What makes means of the gradients that added up."""
        if self.unit is None or self.total is None:
            return 1.0
        return self.unit / self.total.clamp(min=_NOTHING)

    def record(self) -> dict[str, Tensor]:
        """What a checkpoint within the window keeps: the arguments of one that goes on."""
        return {} if self.unit is None or self.total is None else {"unit": self.unit, "total": self.total}
