"""Batches: the contract between the data and the stages.

A batch without a single readable sample has no samples and an empty `prompt`, and nothing else of its kind. Nothing is
ever truncated: what does not fit into the model's context is an error that names the sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NotRequired, TypedDict, cast

from PIL import Image
from torch import Tensor

from dermiq.schema import PreferencePair, Sample


class Samples:
    """The samples of a batch, to be read like a tuple.

    Lightning walks into sequences to move and cast tensors and fails at frozen records; it leaves this alone.
    """

    __slots__ = ("_samples",)

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = tuple(samples)

    def __len__(self) -> int:
        """Number of samples."""
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        """The sample of one row."""
        return self._samples[index]

    def __iter__(self) -> Iterator[Sample]:
        """The samples, row by row."""
        return iter(self._samples)


class Batch(TypedDict):
    """What every batch holds of its B samples.

    Attributes:
        samples: in the order of the rows; `Samples` at run time.
        messages: each conversation as chat messages, up to the reply (see `dermiq.prompts`).
        images: the opened images of each, for another prompt about them.
        skipped: ``id: reason`` of each sample that was left out because an image of it cannot be read (only where the
            data module says ``on_bad_image: skip``), so that B may be smaller than the batch size.
    """

    samples: Sequence[Sample]
    messages: Sequence[list[dict[str, Any]]]
    images: Sequence[list[Image.Image]]
    skipped: NotRequired[tuple[str, ...]]


class PromptBatch(Batch):
    """Prompts to be answered; evaluation data may have whole conversations beside them.

    Attributes:
        prompt: `input_ids` and `attention_mask`, [B, P] int64, padded on the left, and whatever else the model takes of
            the images, opaque to everyone but the backbone.
        conversation: as in `ConversationBatch`, of those samples alone that have a reply.
        loss_mask: likewise.
    """

    prompt: dict[str, Tensor]
    conversation: NotRequired[dict[str, Tensor]]
    loss_mask: NotRequired[Tensor]


class ConversationBatch(Batch):
    """Whole conversations to learn from.

    Attributes:
        conversation: `input_ids` and `attention_mask`, [B, L] int64, padded on the right, and the vision inputs.
        loss_mask: [B, L] bool, True = a token of the assistant that counts.
    """

    conversation: dict[str, Tensor]
    loss_mask: Tensor


class PreferenceBatch(PromptBatch):
    """Prompts with both completions of each; the samples are `PreferencePair`.

    Attributes:
        completion_ids: [2B, T] int64, padded on the right, each row closed by the end-of-turn token: the chosen
            completions of all B prompts, then the rejected ones.
        completion_mask: [2B, T] bool, True = counts.
    """

    completion_ids: Tensor
    completion_mask: Tensor


def pairs_of(batch: PreferenceBatch) -> Sequence[PreferencePair]:
    """The samples of a preference batch, as the pairs that they are."""
    return cast(Sequence[PreferencePair], batch["samples"])
