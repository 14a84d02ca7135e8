"""The metric of an evaluation: it collects the rows of all processes and summarises them."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from dermiq.metrics.rows import PredictionRow
from dermiq.metrics.summary import summarise

NOT_READ = ("id", "images", "question", "completion", "options", "ranking", "votes", "facts")


class EvaluationMetrics(Metric):
    """Everything that an evaluation measures.

    The state is what the metrics read of the rows, as lines of JSON in bytes: a tensor, so that processes can exchange
    it, and nothing of a name is lost on the way. The metrics are functions of the rows of all processes, and the same
    functions give the same numbers from the predictions of a finished run.

    Args:
        detailed: add intervals and slices, see `dermiq.metrics.summarise`.
    """

    full_state_update = False
    rows: list[Tensor]

    def __init__(self, detailed: bool = False) -> None:
        super().__init__()
        self.detailed = detailed
        self.add_state("rows", default=[], dist_reduce_fx="cat")

    def update(self, rows: Sequence[PredictionRow]) -> None:
        """Add rows.

        A process that has none adds none (`update([])`) before it computes, so that the others need not wait for it.
        """
        kept = ({name: value for name, value in row.items() if name not in NOT_READ} for row in rows)
        lines = "".join(json.dumps(row) + "\n" for row in kept).encode()
        self.rows.append(torch.from_numpy(np.frombuffer(lines, dtype=np.uint8).copy()).to(self.device))

    def compute(self) -> dict[str, float]:
        """All metrics by name; none without rows."""
        lines = bytes(dim_zero_cat(self.rows).cpu().numpy()).splitlines()
        return summarise([json.loads(line) for line in lines], self.detailed)
