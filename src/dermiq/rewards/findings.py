"""Does the reasoning state what is there?"""

from __future__ import annotations

from dermiq.atlas import read_findings
from dermiq.schema import Answer, Sample


def _true_and_stated(answer: Answer, sample: Sample) -> tuple[int, int]:
    stated = read_findings(answer.think)
    judged = [name for name in stated if name in sample.findings]
    true = sum(set(stated[name]) <= set(sample.findings[name]) for name in judged)
    return true, len(judged)


def findings(answer: Answer, sample: Sample) -> float:
    """Share of the sample's attributes that ``<think>`` states truly, in [0, 1].

    The truth is what was drawn, or the values typical of the condition. An attribute counts if it is stated and
    every value stated for it is true, so naming all values earns nothing. A sample without findings earns 1.
    """
    if not sample.findings:
        return 1.0
    true, _ = _true_and_stated(answer, sample)
    return true / len(sample.findings)


def truthfulness(answer: Answer, sample: Sample) -> float:
    """Share of the statements in ``<think>`` that are true, in [0, 1]; 0 if nothing is stated of known attributes."""
    if not sample.findings:
        return 1.0
    true, stated = _true_and_stated(answer, sample)
    return true / stated if stated else 0.0
