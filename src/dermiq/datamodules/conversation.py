"""Prompts with the completions to learn, for supervised fine-tuning."""

from __future__ import annotations

from typing import Any

from PIL import Image

from dermiq.datamodules.base import DermDataModule
from dermiq.datamodules.collate import PromptCollate, Samples
from dermiq.processing import encode_completions
from dermiq.prompts import gold_completion


class ConversationCollate(PromptCollate):
    """Items -> a batch of prompts with the completions to learn."""

    def encode(self, samples: Samples, images: list[list[Image.Image]]) -> dict[str, Any]:
        """Prompts and gold completions.

        Raises:
            DataError: if a prompt and its completion do not fit into the model's context.
        """
        batch = super().encode(samples, images)
        ids, mask = encode_completions(self.processor, [gold_completion(sample) for sample in samples])
        self.refuse_overlong(samples, batch["prompt"]["attention_mask"].sum(dim=1) + mask.sum(dim=1), 0)
        return batch | {"completion_ids": ids, "completion_mask": mask}


class ConversationDataModule(DermDataModule):
    """Serves prompts with gold completions for training, and prompt batches for every evaluation."""

    def train_collate(self) -> ConversationCollate:
        """What makes training batches."""
        return ConversationCollate(self.model_id, self.system_prompt, self.max_new_tokens_reserve)
