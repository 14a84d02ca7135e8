"""Rewards from the parts of a score; with weight 0 they are metrics of every evaluation.

None for a sample about no condition of the graph.
"""

from __future__ import annotations

from dermiq.kg.scorer import KGScorer
from dermiq.schema import Answer, Sample


class KGPrecision(KGScorer):
    """Share of supported among the supported and contradicted claims of a completion, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """The precision."""
        judged = self.judge(answer, sample)
        return judged.precision if judged else None


class KGCoverage(KGScorer):
    """Share of the facts that a question needs which a completion states, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """The coverage."""
        judged = self.judge(answer, sample)
        return judged.coverage if judged else None


class KGContradiction(KGScorer):
    """Share of contradicted among all claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """The contradiction rate."""
        judged = self.judge(answer, sample)
        return judged.contradiction_rate if judged else None


class KGHarm(KGScorer):
    """Severity-weighted harm of the contradicted claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """The harm."""
        judged = self.judge(answer, sample)
        return judged.harm if judged else None
