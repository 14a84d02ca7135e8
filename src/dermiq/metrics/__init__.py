"""Metrics: the judge of answers, the rows of predictions, and what they are summarised to."""

from dermiq.metrics.evaluation import EvaluationMetrics
from dermiq.metrics.judging import CONVERSATION, NO_ANSWER, Judge, Name
from dermiq.metrics.rows import EvaluationOutput, PredictionRow, Vote
from dermiq.metrics.summary import named_classes, summarise
from dermiq.metrics.terminology import Terminology

__all__ = [
    "CONVERSATION",
    "NO_ANSWER",
    "EvaluationMetrics",
    "EvaluationOutput",
    "Judge",
    "Name",
    "PredictionRow",
    "Terminology",
    "Vote",
    "named_classes",
    "summarise",
]
