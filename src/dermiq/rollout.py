"""Sampling: G completions for each prompt, the prompt prefilled once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from dermiq.backbone import VLMBackbone
from dermiq.caches import decoding_cache
from dermiq.prefix import Prefix, continue_from, log_softmax, prefill
from dermiq.prompts import parse
from dermiq.schema import Answer, Sample, TrainingError


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn: temperature 0 is greedy."""

    max_new_tokens: int = 256
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0:
            raise ValueError(f"sampling needs max_new_tokens >= 1 and temperature >= 0; got {self}")


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
    def rows(self) -> Tensor:
        """[N] int64, the prompt of each completion."""
        return torch.arange(len(self.samples), device=self.ids.device).repeat_interleave(self.group_size)

    @property
    def lengths(self) -> Tensor:
        """[B, G] int64, tokens of each completion."""
        return self.mask.sum(-1).view(len(self.samples), -1)

    @property
    def confidence(self) -> Tensor:
        """[B, G] float32 in (0, 1], the policy's length-normalised probability of each completion."""
        mean = self.logprobs.sum(-1) / self.mask.sum(-1).clamp(min=1)
        return mean.exp().view(len(self.samples), -1)

    def parts(self, size: int | None) -> Iterator[Tensor]:
        """Row indices [n] of micro-batches of at most `size` completions; None gives one of all."""
        yield from torch.arange(len(self.ids), device=self.ids.device).split(size or len(self.ids))


def sample_rollout(
    backbone: VLMBackbone,
    prompt: Mapping[str, Tensor],
    samples: Sequence[Sample],
    sampling: Sampling,
    group_size: int = 1,
    seed: str = "0",
    rows_per_pass: int | None = None,
) -> Rollout:
    """Draw `group_size` completions of each prompt in evaluation mode, without gradients.

    The random numbers of a completion depend on `seed`, its sample's id and its place in the group alone, so
    neither the batch around it nor the number of processes nor a resume changes what is drawn. At most
    `rows_per_pass` completions are decoded together, all if None.

    Raises:
        TrainingError: if the policy's probabilities are not finite, naming the samples.
    """
    noise = _noise(samples, group_size, sampling.max_new_tokens, seed).to(prompt["input_ids"].device)
    with backbone.sampling_mode():
        prefix = prefill(backbone, prompt)
        rows = torch.arange(len(samples), device=noise.device).repeat_interleave(group_size)
        size = rows_per_pass or len(rows)
        passes = [
            _decode(backbone, prefix, *part, sampling) for part in zip(rows.split(size), noise.split(size), strict=True)
        ]
        ids, mask, logprobs = (_join(parts) for parts in zip(*passes, strict=True))
    _refuse_non_finite(logprobs, samples)
    answers = [parse(text) for text in backbone.decode(ids, mask)]
    groups = [answers[start : start + group_size] for start in range(0, len(answers), group_size)]
    return Rollout(tuple(samples), ids, mask, logprobs, groups)


def _refuse_non_finite(logprobs: Tensor, samples: Sequence[Sample]) -> None:
    if not torch.isfinite(logprobs).all():
        raise TrainingError(
            f"The policy's probabilities are not finite on the samples {', '.join(sample.id for sample in samples)}: "
            "its weights or these images are broken. If this came up in training, lower the learning rate and "
            "go on from the last adapter that works."
        )


def _join(parts: Sequence[Tensor]) -> Tensor:
    """Rows of different width [n, T] one below the other, padded with 0."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([pad(part, (0, width - part.shape[1])) for part in parts])


def _decode(
    backbone: VLMBackbone, prefix: Prefix, rows: Tensor, noise: Tensor, sampling: Sampling
) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens, mask and log-probs [n, T] of completions of the prompts `rows` [n] under `noise` [n, steps]."""
    cache = decoding_cache(prefix.states, rows, sampling.max_new_tokens)
    stops = torch.tensor(backbone.stop_ids, device=noise.device)
    logits, going = prefix.last_logits[rows], torch.ones_like(rows, dtype=torch.bool)
    ids, mask, logprobs = [], [], []
    for step in range(sampling.max_new_tokens):
        distribution = log_softmax(logits, backbone.banned, sampling.temperature or 1.0)
        token = _pick(distribution, noise[:, step] if sampling.temperature else None)
        ids.append(token.where(going, stops[0]))
        mask.append(going)
        logprobs.append(distribution.gather(-1, token[:, None])[:, 0].where(going, 0.0))
        going = going & ~torch.isin(token, stops)
        if step + 1 == sampling.max_new_tokens or not going.any():
            break
        seen = torch.stack(mask, dim=1)
        logits = continue_from(backbone, prefix, cache, rows, ids[-1][:, None], seen, done=step)[:, -1]
    return torch.stack(ids, dim=1), torch.stack(mask, dim=1), torch.stack(logprobs, dim=1)


def _pick(distribution: Tensor, uniform: Tensor | None) -> Tensor:
    """Tokens [N] by inverse transform of log-probs [N, V] at `uniform` [N] in [0, 1); None is greedy."""
    if uniform is None:
        return distribution.argmax(-1)
    cumulative = distribution.exp().cumsum(-1)
    threshold = uniform.clamp(max=1 - 1e-6) * cumulative[:, -1]
    token = torch.searchsorted(cumulative, threshold[:, None], right=True)[:, 0]
    return token.clamp(max=distribution.shape[-1] - 1)  # NaN finds no place; the caller refuses it


def _noise(samples: Sequence[Sample], group_size: int, steps: int, seed: str) -> Tensor:
    """Uniform numbers [B * G, steps] float32."""
    rows = []
    seen: Counter[str] = Counter()
    for sample in samples:
        digest = hashlib.sha256(f"{seed}/{sample.id}/{seen[sample.id]}".encode()).digest()
        seen[sample.id] += 1
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        rows.append(torch.rand(group_size, steps, generator=generator, dtype=torch.float32))
    return torch.cat(rows)
