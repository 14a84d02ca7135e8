"""Repetition penalty of the reasoning."""

from __future__ import annotations

from dataclasses import dataclass

from dermiq.schema import Answer, Sample


@dataclass(frozen=True)
class Repetition:
    """Repetition penalty: minus the share of the reasoning's n-grams of words that occurred before, in [-1, 0].

    The idea is that of Yeo et al. 2025, "Demystifying Long Chain-of-Thought Reasoning in LLMs" (arXiv:2502.03373), who
    need it so that a length reward does not reward repetition. Ours is one number for the whole reasoning; words are
    split at white space, and case does not matter.

    Attributes:
        n: words of an n-gram.
    """

    n: int = 3

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ValueError(f"an n-gram has at least one word; got n = {self.n}")

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """0 without repetition or with fewer than n words; None for conversation."""
        if not sample.structured:
            return None
        words = answer.think.lower().split()
        grams = [tuple(words[start : start + self.n]) for start in range(len(words) - self.n + 1)]
        return len(set(grams)) / len(grams) - 1.0 if grams else 0.0
