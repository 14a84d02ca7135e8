"""The parts of a score as functions of (answer, sample): reward terms, or with weight 0 metrics of every evaluation."""

from __future__ import annotations

from dermiq.kg.scorer import KGScorer
from dermiq.schema import Answer, Sample


class KGPrecision(KGScorer):
    """Share of supported among the supported and contradicted claims of a completion, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float:
        """Its precision."""
        return self.judge(answer, sample).precision


class KGCoverage(KGScorer):
    """How much of what the question needs a completion states, in [0, 1]."""

    def __call__(self, answer: Answer, sample: Sample) -> float:
        """Its coverage."""
        return self.judge(answer, sample).coverage


class KGContradiction(KGScorer):
    """Share of contradicted among all claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float:
        """Its contradiction rate."""
        return self.judge(answer, sample).contradiction_rate


class KGHarm(KGScorer):
    """Severity-weighted harm of the contradicted claims of a completion, in [0, 1]; the lower the better."""

    def __call__(self, answer: Answer, sample: Sample) -> float:
        """Its harm."""
        return self.judge(answer, sample).harm
