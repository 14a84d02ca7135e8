"""Sampling of completions: its settings, its result, what an engine is, and the random numbers of each completion.

Shapes: B prompts, G completions of each, N = B*G; T tokens of the longest completion.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.prefix import Prefix
from dermiq.ranges import TOKENS, check_numbers
from dermiq.schema import Sample


@dataclass(frozen=True)
class Sampling:
    """Settings of sampling.

    Attributes:
        max_new_tokens: length of the longest completion.
        temperature: of the policy; 0 is greedy.
        stop: texts that end a completion, beside the end of the turn; the token that completes one counts.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # Logits overflow once they are divided by something smaller.
        check_numbers(self, max_new_tokens=TOKENS, temperature="[0, 100]" if self.temperature == 0 else "[1e-6, 100]")
        if "" in self.stop:
            raise ValueError(f"sampling needs no empty stop; got {self}")


class Completions(NamedTuple):
    """N completions of T tokens, each [N, T]: ids int64, mask bool (True = counts), logprobs float32 of the sampler."""

    ids: Tensor
    mask: Tensor
    logprobs: Tensor


class Engine(Protocol):
    """Samples completions of the policy."""

    def complete(
        self,
        backbone: VLMBackbone,
        batch: PromptBatch,
        sampling: Sampling,
        group_size: int,
        seed: str,
        prefix: Prefix | None = None,
    ) -> Completions:
        """Sampled completions, `group_size` for each of the batch's B prompts: N = B * group_size rows in prompt order.

        Args:
            backbone: the policy, loaded, in evaluation mode without gradients.
            batch: the prompts.
            sampling: the settings.
            group_size: completions per prompt.
            seed: a completion depends on it, on the sample's id and on the place in the group alone.
            prefix: the prompts, if they ran already.
        """
        ...


def uniform_numbers(samples: Sequence[Sample], group_size: int, steps: int, seed: str) -> Tensor:
    """Uniform numbers [B*G, steps] float32 that depend on the seed, the sample's id and the place in the group."""
    rows = []
    for digest in seed_digests(samples, seed):
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        rows.append(torch.rand(group_size, steps, generator=generator, dtype=torch.float32))
    return torch.cat(rows)


def seed_digests(samples: Sequence[Sample], seed: str) -> Iterator[bytes]:
    """A hash for each sample of the seed, its id, and how often that id occurred before it."""
    seen: Counter[str] = Counter()
    for sample in samples:
        yield hashlib.sha256(f"{seed}/{sample.id}/{seen[sample.id]}".encode()).digest()
        seen[sample.id] += 1
