"""Whole conversations, for supervised fine-tuning and for the held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from PIL import Image
from torch import Tensor

from dermiq.datamodules.base import DermDataModule
from dermiq.datamodules.collate import Collate, PromptCollate
from dermiq.datamodules.splits import Numbers
from dermiq.policy.batches import Batch, ConversationBatch, PromptBatch
from dermiq.policy.processing import encode_conversations
from dermiq.prompts import to_conversation, to_messages
from dermiq.schema import Sample


class ConversationCollate(Collate[ConversationBatch]):
    """Items -> a batch of conversations with the replies to learn."""

    def encode(self, samples: Sequence[Sample], images: list[list[Image.Image]]) -> ConversationBatch:
        """Whole conversations.

        Raises:
            DataError: if one does not fit into the model's context.
            ModelError: if the assistant's tokens of one cannot be found in the text.
        """
        messages = [to_messages(sample, self.system_prompt) for sample in samples]
        conversation, mask = _whole(self, samples, images)
        return {
            "samples": samples,
            "messages": messages,
            "images": images,
            "conversation": conversation,
            "loss_mask": mask,
        }


class HeldOutCollate(PromptCollate):
    """Items -> a batch of prompts, with the whole conversation of each sample that has a reply."""

    def encode(self, samples: Sequence[Sample], images: list[list[Image.Image]]) -> PromptBatch:
        """Prompts, and conversations where there are any.

        Raises:
            DataError: if one does not fit into the model's context.
            ModelError: if the assistant's tokens of one cannot be found in the text.
        """
        batch = super().encode(samples, images)
        replies = [(sample, shown) for sample, shown in zip(samples, images, strict=True) if sample.reply is not None]
        if replies:
            batch["conversation"], batch["loss_mask"] = _whole(self, *map(list, zip(*replies, strict=True)))
        return batch


class ConversationDataModule(DermDataModule):
    """Serves whole conversations for training, and prompt batches for every evaluation.

    Args:
        group_by_length: make training batches of samples of similar length, so that short ones do not pay for the
            padding of long ones where the stage does not pack them; see `dermiq.datamodules.sampler.EpochSampler`.
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


def _whole(
    collate: Collate[Batch], samples: Sequence[Sample], images: Sequence[list[Image.Image]]
) -> tuple[dict[str, Tensor], Tensor]:
    """The entries `conversation` and `loss_mask` of some samples."""
    conversations = [to_conversation(sample, collate.system_prompt) for sample in samples]
    inputs, mask = encode_conversations(collate.processor, conversations, images)
    collate.refuse_overlong(samples, inputs["attention_mask"].sum(dim=1), 0)
    return inputs, mask
