"""Sampling: G completions for each prompt, the prompt prefilled once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.decoding import Decoder
from dermiq.policy.prefix import Prefix
from dermiq.policy.sampling import Completions, Engine, Sampling
from dermiq.prompts import in_words, parse
from dermiq.schema import Answer, Sample, TrainingError

__all__ = [
    "Completions",
    "Decoder",
    "Engine",
    "Rollout",
    "RolloutPart",
    "Sampling",
    "sample_rollout",
    "select_prompts",
    "tokens_within",
]


@dataclass(frozen=True)
class RolloutPart:
    """A micro-batch of n of a rollout's completions, cut to the t tokens of the longest of them.

    Attributes:
        index: [n] int64, their places among the rollout's N.
        rows: [n] int64, the prompt of each.
        ids: [n, t] int64.
        mask: [n, t] bool, True = counts.
    """

    index: Tensor
    rows: Tensor
    ids: Tensor
    mask: Tensor

    def of(self, values: Tensor) -> Tensor:
        """This part [n] or [n, t] of values [N] or [N, T] of the whole rollout."""
        return values[self.index] if values.ndim == 1 else values[self.index, : self.ids.shape[1]]

    def put(self, values: Tensor, whole: Tensor) -> None:
        """Write this part's values [n, t] into their places in `whole` [N, T]."""
        whole[self.index, : self.ids.shape[1]] = values


@dataclass(frozen=True)
class Rollout:
    """Completions of B prompts, G each, N = B * G rows in prompt order.

    Attributes:
        samples: the B samples.
        ids: [N, T] int64.
        mask: [N, T] bool, True = counts; the end of the turn counts.
        logprobs: [N, T] float32 under the policy that sampled, 0 where masked.
        answers: B lists of G parsed completions.
    """

    samples: tuple[Sample, ...]
    ids: Tensor
    mask: Tensor
    logprobs: Tensor
    answers: list[list[Answer]]

    @property
    def group_size(self) -> int:
        """Completions per prompt."""
        return len(self.answers[0])

    @property
    def flat_answers(self) -> list[Answer]:
        """The N parsed completions."""
        return [answer for group in self.answers for answer in group]

    @property
    def rows(self) -> Tensor:
        """[N] int64, the prompt of each completion."""
        return torch.arange(len(self.answers), device=self.ids.device).repeat_interleave(self.group_size)

    @property
    def lengths(self) -> Tensor:
        """[B, G] int64, tokens of each completion."""
        return self.mask.sum(-1).view(len(self.samples), -1)

    @property
    def confidence(self) -> Tensor:
        """[B, G] float32 in (0, 1], the policy's length-normalised probability of each completion."""
        mean = self.logprobs.sum(-1) / self.mask.sum(-1).clamp(min=1)
        return mean.exp().view(len(self.samples), -1)

    def with_groups(self, places: Sequence[int], other: Rollout) -> Rollout:
        """The same with the groups at `places` taken from `other`, whose groups they are; both padded alike."""
        rows = torch.cat([torch.arange(self.group_size) + place * self.group_size for place in places])
        rows, width = rows.to(self.ids.device), max(self.ids.shape[1], other.ids.shape[1])

        def merged(mine: Tensor, theirs: Tensor) -> Tensor:
            padded = [pad(tensor, (0, width - tensor.shape[1])) for tensor in (mine, theirs)]
            return padded[0].index_copy(0, rows, padded[1])

        answers = dict(enumerate(self.answers)) | dict(zip(places, other.answers, strict=True))
        return Rollout(
            samples=self.samples,
            ids=merged(self.ids, other.ids),
            mask=merged(self.mask, other.mask),
            logprobs=merged(self.logprobs, other.logprobs),
            answers=list(answers.values()),
        )

    def parts(self, tokens: int | None) -> Iterator[RolloutPart]:
        """Micro-batches of at most `tokens` padded tokens; None gives one of all.

        A micro-batch holds whole groups, or part of one; a row that is too long alone stands alone. Within a group
        that has to be divided, rows go by length, so that little of them is padding.
        """
        rows = self.rows
        for index in self._indices(tokens):
            index = index.to(self.ids.device)
            width = int(self.mask[index].sum(-1).max())
            yield RolloutPart(index, rows[index], self.ids[index, :width], self.mask[index, :width])

    def _indices(self, tokens: int | None) -> Iterator[Tensor]:
        """Row indices [n] of the micro-batches."""
        rows = torch.arange(len(self.ids))
        if tokens is None:
            yield rows
            return
        lengths = self.mask.sum(-1).cpu()
        whole: list[Tensor] = []
        for group in rows.split(self.group_size):
            if whole and _padded(lengths, [*whole, group]) > tokens:
                yield torch.cat(whole)
                whole = []
            if _padded(lengths, [group]) <= tokens:
                whole.append(group)
            else:
                yield from _divided(group, lengths, tokens)
        if whole:
            yield torch.cat(whole)


def _padded(lengths: Tensor, groups: Sequence[Tensor]) -> int:
    """Tokens of a micro-batch of these rows, padding included."""
    rows = torch.cat(list(groups))
    return len(rows) * int(lengths[rows].max())


def _divided(group: Tensor, lengths: Tensor, tokens: int) -> Iterator[Tensor]:
    """A group's rows, the longest first, in pieces of at most `tokens` padded tokens."""
    order = group[lengths[group].argsort(descending=True, stable=True)]
    while len(order):
        size = max(1, tokens // max(1, int(lengths[order[0]])))
        yield order[:size]
        order = order[size:]


def tokens_within(decode: Callable[[Tensor, Tensor], list[str]], ids: Tensor, mask: Tensor, end: int) -> int:
    """The number of a completion's leading tokens whose text has at most `end` characters.

    Args:
        decode: (ids, mask) -> texts, as `VLMBackbone.decode`.
        ids: [T] int64, padded on the right.
        mask: [T] bool.
        end: number of characters.
    """

    def length(tokens: int) -> int:
        return len(decode(ids[None, :tokens], mask[None, :tokens])[0])

    return bisect_right(range(int(mask.sum()) + 1), end, key=length) - 1


def select_prompts(batch: PromptBatch, rows: Sequence[int]) -> PromptBatch:
    """Some prompts of a batch without the vision inputs, which those who have their prefix do not need."""
    return {
        "samples": [batch["samples"][row] for row in rows],
        "messages": [batch["messages"][row] for row in rows],
        "images": [batch["images"][row] for row in rows],
        "prompt": {name: batch["prompt"][name][list(rows)] for name in ("input_ids", "attention_mask")},
    }


def sample_rollout(
    backbone: VLMBackbone,
    batch: PromptBatch,
    sampling: Sampling,
    group_size: int = 1,
    seed: str = "0",
    engine: Engine | None = None,
    prefix: Prefix | None = None,
) -> Rollout:
    """Sample `group_size` completions of each prompt, in evaluation mode and without gradients.

    The random numbers of a completion depend on `seed`, its sample's id and its place in the group alone, so
    neither the batch around it nor the number of processes nor a resume changes what is sampled.

    Args:
        backbone: a loaded backbone.
        batch: the prompts.
        sampling: length, temperature and stops of the completions.
        group_size: completions per prompt.
        seed: of the random numbers.
        engine: samples the completions; None is `Decoder()`.
        prefix: the prompts, if they ran already under the same weights.

    Raises:
        TrainingError: if the policy's probabilities are not finite, naming the samples.
    """
    samples = batch["samples"]
    with backbone.sampling_mode():
        completions = (engine or Decoder()).complete(backbone, batch, sampling, group_size, seed, prefix)
    _refuse_non_finite(completions.logprobs, samples)
    texts = backbone.decode(completions.ids, completions.mask)
    repeated = [sample for sample in samples for _ in range(group_size)]  # the sample of each completion
    answers = [
        parse(text if sample.structured else in_words(text)) for sample, text in zip(repeated, texts, strict=True)
    ]
    groups = [answers[start : start + group_size] for start in range(0, len(answers), group_size)]
    return Rollout(tuple(samples), *completions, groups)


def _refuse_non_finite(logprobs: Tensor, samples: Sequence[Sample]) -> None:
    if not torch.isfinite(logprobs).all():
        raise TrainingError(
            f"The policy's probabilities are not finite on the samples {', '.join(sample.id for sample in samples)}: "
            "its weights or these images are broken. If this came up in training, lower the learning rate and "
            "go on from the last adapter that works."
        )
