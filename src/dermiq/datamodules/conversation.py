"""Whole conversations to learn from, for supervised fine-tuning.

Training batches hold, beside `samples`, `skipped`, `messages` and `images` (see `dermiq.datamodules.collate`),

    conversation  dict[str, Tensor]: what the model takes of the whole conversations, `input_ids` and
                  `attention_mask` [B, L] int64 padded on the right, and the vision inputs
    loss_mask     [B, L] bool, True = a token of the assistant that counts

Evaluation batches hold prompts. Where samples have a reply to be compared with, they hold both entries as well, for
these samples alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from dermiq.datamodules.base import DermDataModule
from dermiq.datamodules.collate import PromptCollate, Samples
from dermiq.datamodules.splits import Numbers
from dermiq.policy.processing import encode_conversations
from dermiq.prompts import to_conversation, to_messages
from dermiq.schema import Sample


class ConversationCollate(PromptCollate):
    """Items -> a batch of conversations with the replies to learn."""

    def encode(self, samples: Samples, images: list[list[Image.Image]]) -> dict[str, Any]:
        """Whole conversations.

        Raises:
            DataError: if one does not fit into the model's context.
            ModelError: if the assistant's tokens of one cannot be told from the rest.
        """
        messages = [to_messages(sample, self.system_prompt) for sample in samples]
        return {"messages": messages, "images": images} | self.whole(list(samples), images)

    def whole(self, samples: Sequence[Sample], images: Sequence[list[Image.Image]]) -> dict[str, Tensor | Any]:
        """The entries `conversation` and `loss_mask` of some samples."""
        conversations = [to_conversation(sample, self.system_prompt) for sample in samples]
        inputs, mask = encode_conversations(self.processor, conversations, images)
        self.refuse_overlong(Samples(samples), inputs["attention_mask"].sum(dim=1), 0)
        return {"conversation": inputs, "loss_mask": mask}


class HeldOutCollate(ConversationCollate):
    """Items -> a batch of prompts, with the whole conversation of each sample that has a reply."""

    def encode(self, samples: Samples, images: list[list[Image.Image]]) -> dict[str, Any]:
        """Prompts, and conversations where there are any.

        Raises:
            DataError: if one does not fit into the model's context.
            ModelError: if the assistant's tokens of one cannot be told from the rest.
        """
        batch = PromptCollate.encode(self, samples, images)
        replies = [(sample, shown) for sample, shown in zip(samples, images, strict=True) if sample.reply is not None]
        return batch | self.whole(*map(list, zip(*replies, strict=True))) if replies else batch


class ConversationDataModule(DermDataModule):
    """Serves whole conversations for training, and prompt batches for every evaluation.

    Args:
        group_by_length: make training batches of samples of similar length, so that short ones do not pay for the
            padding of long ones where the stage does not pack them; see `dermiq.datamodules.loading.EpochSampler`.
    """

    def __init__(self, *args: Any, group_by_length: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.group_by_length = group_by_length

    def train_collate(self) -> ConversationCollate:
        """What makes training batches."""
        return ConversationCollate(self.model_id, self.system_prompt, self.max_new_tokens_reserve)

    def eval_collate(self) -> PromptCollate:
        """What makes evaluation batches."""
        return HeldOutCollate(self.model_id, self.system_prompt, self.max_new_tokens_reserve)

    def _lengths(self) -> Numbers | None:
        return self._tables["train"].integers("length") if self.group_by_length else None
