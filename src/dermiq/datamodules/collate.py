"""Samples -> batches: datasets that open images, and the collate functions of `dermiq.policy.batches`."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Generic, NamedTuple, TypeVar, cast

from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dermiq.datamodules.sources.base import Source
from dermiq.policy.batches import Batch, PromptBatch, Samples
from dermiq.policy.hub import context_length, load_config, load_processor
from dermiq.policy.processing import ProcessorMixin, encode_prompts
from dermiq.prompts import IMAGE, check_marks, to_messages
from dermiq.schema import DataError, DermIQError, Message, ModelError, Sample

log = logging.getLogger(__name__)


# Once per process; workers that are forked inherit what setup has loaded.
_processor = cache(load_processor)
_config = cache(load_config)

# What processors and tokenizers raise at what they cannot read; an error of this machine is none of the sample's.
_UNREADABLE = (ModelError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ArithmeticError)
_SHOWN = 300  # characters of what a processor says

AnyBatch = TypeVar("AnyBatch", bound=Batch, covariant=True)


class Item(NamedTuple):
    """A sample with its opened images, or with the reason why they could not be opened."""

    sample: Sample
    images: list[Image.Image]
    problem: str = ""


class SampleDataset(Dataset[Item]):
    """Some samples of a source, their images opened on access.

    Args:
        source: a loaded source.
        indices: which of its samples.
        skip_bad_images: report an image that cannot be opened in the item instead of raising.
    """

    def __init__(self, source: Source, indices: Sequence[int], skip_bad_images: bool = False) -> None:
        self.source, self.indices, self.skip_bad_images = source, indices, skip_bad_images

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Item:
        """Open the images of one sample.

        Raises:
            DataError: if one cannot be opened, unless bad images are skipped.
        """
        sample = self.source[self.indices[index]]
        try:
            return Item(sample, [self.source.image(reference) for reference in sample.images])
        except DataError as error:
            if not self.skip_bad_images:
                raise
            return Item(sample, [], str(error))


class Collate(ABC, Generic[AnyBatch]):
    """A collate function: items -> a batch of some kind.

    Args:
        model_id: whose processor encodes the prompts.
        system_prompt: of every question to be answered in structure; None takes that of its kind.
        max_new_tokens_reserve: tokens of the context to be left for the completion.
    """

    def __init__(self, model_id: str, system_prompt: str | None, max_new_tokens_reserve: int) -> None:
        self.model_id, self.system_prompt = model_id, system_prompt
        self.max_new_tokens_reserve = max_new_tokens_reserve

    @property
    def processor(self) -> ProcessorMixin:
        """The model's processor, loaded once per process."""
        return _processor(self.model_id)

    def __call__(self, items: Sequence[Item]) -> AnyBatch:
        """Encode the items whose images could be opened.

        Raises:
            DataError: if a sample does not fit into the model's context, or its processor cannot read it.
            ModelError: if the model's chat template refuses a sample.
        """
        skipped = tuple(f"{item.sample.id}: {item.problem}" for item in items if item.problem)
        good = [item for item in items if not item.problem]
        samples = cast(Sequence[Sample], Samples([item.sample for item in good]))
        for sample in samples:
            said = (turn.text for turn in (*sample.history, Message("user", sample.question)) if turn.role == "user")
            check_marks(sum(text.count(IMAGE) for text in said), len(sample.images), f"sample {sample.id!r}")
        if not good:
            log.warning("a whole batch is left out, no image of it can be read: %s", "; ".join(skipped))
            nothing = {"samples": samples, "prompt": {}, "messages": [], "images": [], "skipped": skipped}
            return cast(AnyBatch, nothing)
        try:
            batch = self.encode(samples, [item.images for item in good])
        except _UNREADABLE as error:
            raise self._named(good, error) from None
        batch["skipped"] = skipped
        return batch

    def _named(self, items: Sequence[Item], error: Exception) -> DermIQError:
        """The error of a processor or a template about a batch, with the names of the samples concerned."""
        for item in items if len(items) > 1 else ():
            try:
                self.encode([item.sample], [item.images])
            except _UNREADABLE as own:
                return self._named([item], own)
        names = f"samples {', '.join(item.sample.id for item in items)}"
        if isinstance(error, ModelError):
            return ModelError(f"{names}: {error}")
        said = " ".join(str(error).split())[:_SHOWN]
        return DataError(
            f"{names}: the processor of {self.model_id} cannot read what is asked and shown ({type(error).__name__}: "
            f"{said}). Look at the texts and images of the row, correct it or leave it out."
        )

    @abstractmethod
    def encode(self, samples: Sequence[Sample], images: list[list[Image.Image]]) -> AnyBatch:
        """The batch of some samples, without `skipped`.

        Raises:
            DataError: if a sample does not fit into the model's context.
        """

    def refuse_overlong(self, samples: Sequence[Sample], lengths: Tensor, completion: int) -> None:
        """Check that prompts of `lengths` [B] tokens and `completion` tokens more fit into the model's context.

        Raises:
            DataError: naming the sample that does not.
        """
        context = context_length(_config(self.model_id))
        for sample, length in zip(samples, lengths.tolist(), strict=True):
            if length + completion > context:
                raise DataError(
                    f"sample {sample.id!r}: its prompt of {length} tokens ({len(sample.images)} image(s)) and "
                    f"{completion} tokens of completion do not fit into the {context} tokens of context of "
                    f"{self.model_id}. Use smaller or fewer images, shorten the question, or lower max_new_tokens of "
                    "model.sampling and model.eval_sampling. Nothing is truncated."
                )


class PromptCollate(Collate[PromptBatch]):
    """Items -> a prompt batch."""

    def encode(self, samples: Sequence[Sample], images: list[list[Image.Image]]) -> PromptBatch:
        """Prompts.

        Raises:
            DataError: if a prompt and its completion do not fit into the model's context.
        """
        messages = [to_messages(sample, self.system_prompt) for sample in samples]
        prompt = encode_prompts(self.processor, messages, images)
        self.refuse_overlong(samples, prompt["attention_mask"].sum(dim=1), self.max_new_tokens_reserve)
        return {"samples": samples, "prompt": prompt, "messages": messages, "images": images}
