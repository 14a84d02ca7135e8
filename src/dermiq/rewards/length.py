"""Length rewards of the reasoning, in words (split at white space), of three kinds.

"Toward Effective Reinforcement Learning Fine-Tuning for Medical VQA" (Zhu et al. 2025, arXiv:2505.13973) compares two
of them and finds that both cost accuracy. Its formulas and scales were not available to us: those here are
reconstructed from what the rewards are said to depend on. A malformed completion has no reasoning, hence no words.
"""

from __future__ import annotations

from dataclasses import dataclass

from dermiq.rewards.diagnosis import diagnosis
from dermiq.schema import Answer, Sample


@dataclass(frozen=True)
class ExtendedChain:
    """Extended-chain reward (ECR) of arXiv:2505.13973, reconstructed: length alone, right or wrong, in [0, 1].

    It rewards padding: a baseline, not a recommendation.

    Attributes:
        full_words: words that earn 1; fewer earn their share of it, more earn no more.
    """

    full_words: int

    def __post_init__(self) -> None:
        if self.full_words < 1:
            raise ValueError(f"full_words is the length that earns 1, at least one word; got {self.full_words}")

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """min(1, words / full_words); None for conversation."""
        return min(1.0, _words(answer) / self.full_words) if sample.structured else None


@dataclass(frozen=True)
class CorrectnessWeightedLength(ExtendedChain):
    """Correctness-weighted length reward (CWR) of arXiv:2505.13973, reconstructed: length of right answers, in [0, 1].

    Attributes:
        full_words: words that earn 1; fewer earn their share of it, more earn no more.
    """

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """min(1, words / full_words) if `dermiq.rewards.diagnosis` is 1, else 0; None for conversation."""
        right = diagnosis(answer, sample)
        return None if right is None else right * min(1.0, _words(answer) / self.full_words)


@dataclass(frozen=True)
class LengthBand:
    """Length-adaptive shaping: a band of lengths earns 1, with soft edges on both sides.

    The soft edge towards long completions is that of DAPO's overlong shaping (Yu et al. 2025, arXiv:2503.14476,
    section 3.4), in words and down to 0 in place of -1; the edge towards short ones is its mirror image.

    Attributes:
        low: least words that earn 1.
        high: most words that earn 1.
        soft: words outside the band over which the reward falls to 0; 1 makes the edges hard.
    """

    low: int
    high: int
    soft: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high or self.soft < 1:
            raise ValueError(f"a band needs 0 <= low <= high and soft >= 1; got {self}")

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """1 within the band, falling linearly to 0 outside; 0 if malformed, None for conversation."""
        if not sample.structured:
            return None
        words = _words(answer)
        outside = max(self.low - words, words - self.high, 0)
        return float(answer.well_formed) * max(0.0, 1.0 - outside / self.soft)


def _words(answer: Answer) -> int:
    return len(answer.think.split())
