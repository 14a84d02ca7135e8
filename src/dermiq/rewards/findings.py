"""Rewards for the findings that the reasoning states."""

from __future__ import annotations

from dermiq.findings import stated_truly
from dermiq.schema import Answer, Sample


def _prose(answer: Answer, sample: Sample) -> str:
    return answer.text if answer.diagnosis is None and not sample.structured else answer.think


def findings(answer: Answer, sample: Sample) -> float | None:
    """Recall: share of the sample's attributes that the reasoning, or a reply in plain words, states truly, in [0, 1].

    The truth is the rendered findings, or the values typical of the condition. An attribute counts if it is stated and
    every value stated for it is true, so naming all values earns nothing. A sample without findings earns 1, or None
    in a conversation.
    """
    if not sample.findings:
        return 1.0 if sample.asks_diagnosis else None
    true, _ = stated_truly(_prose(answer, sample), sample.findings)
    return true / len(sample.findings)


def truthfulness(answer: Answer, sample: Sample) -> float | None:
    """Precision: share of the findings stated in the reasoning, or in a reply in plain words, that are true, in [0, 1].

    0 if nothing is stated of known attributes; a sample without findings earns 1, or None in a conversation.
    """
    if not sample.findings:
        return 1.0 if sample.asks_diagnosis else None
    true, stated = stated_truly(_prose(answer, sample), sample.findings)
    return true / stated if stated else 0.0
