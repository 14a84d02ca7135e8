"""Prompts with the completions to learn, for supervised fine-tuning."""

from __future__ import annotations

from dermiq.datamodules.base import DermDataModule
from dermiq.datamodules.collate import ConversationCollate


class ConversationDataModule(DermDataModule):
    """Serves prompts with gold completions for training, and prompt batches for every evaluation."""

    def train_collate(self) -> ConversationCollate:
        """What makes training batches."""
        return ConversationCollate(self.model_id, self.system_prompt, self.max_new_tokens_reserve)
