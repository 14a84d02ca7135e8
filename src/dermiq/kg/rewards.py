"""The parts of a score as functions of (answer, sample): reward terms, or with weight 0 metrics of every evaluation.

They do not apply (None) to a conversation about no known condition.
"""

from __future__ import annotations

from dermiq.kg.scorer import KGScorer
from dermiq.schema import Answer, Sample


class KGPrecision(KGScorer):
    """Share of supported among the supported and contradicted claims of a completion, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its precision."""
        return self.judge(answer, sample).precision if sample.target else None


class KGCoverage(KGScorer):
    """How much of what the question needs a completion states, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its coverage."""
        return self.judge(answer, sample).coverage if sample.target else None


class KGContradiction(KGScorer):
    """Share of contradicted among all claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its contradiction rate."""
        return self.judge(answer, sample).contradiction_rate if sample.target else None


class KGHarm(KGScorer):
    """Severity-weighted harm of the contradicted claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its harm."""
        return self.judge(answer, sample).harm if sample.target else None
