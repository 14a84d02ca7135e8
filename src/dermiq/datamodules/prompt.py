"""Prompts for stages whose policy samples the completions, and for every evaluation."""

from __future__ import annotations

from dermiq.datamodules.base import DermDataModule
from dermiq.datamodules.collate import PromptCollate


class PromptDataModule(DermDataModule):
    """Serves prompt batches in every split (see `dermiq.policy.batches`)."""

    def train_collate(self) -> PromptCollate:
        """What makes training batches."""
        return self.eval_collate()
