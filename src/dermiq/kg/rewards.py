"""The parts of a score as functions of (answer, sample): reward terms, or with weight 0 metrics of every evaluation.

They do not apply (None) to a sample about no condition of the graph.
"""

from __future__ import annotations

from dermiq.kg.scorer import KGScorer
from dermiq.schema import Answer, Sample


class KGPrecision(KGScorer):
    """Share of supported among the supported and contradicted claims of a completion, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its precision."""
        judged = self.judge(answer, sample)
        return judged.precision if judged else None


class KGCoverage(KGScorer):
    """How much of what the question needs a completion states, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its coverage."""
        judged = self.judge(answer, sample)
        return judged.coverage if judged else None


class KGContradiction(KGScorer):
    """Share of contradicted among all claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its contradiction rate."""
        judged = self.judge(answer, sample)
        return judged.contradiction_rate if judged else None


class KGHarm(KGScorer):
    """Severity-weighted harm of the contradicted claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """Its harm."""
        judged = self.judge(answer, sample)
        return judged.harm if judged else None
