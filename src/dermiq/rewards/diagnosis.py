"""Outcome reward and gates: the right diagnosis, the structure asked for, no hedging."""

from __future__ import annotations

import re

from dermiq.prompts import accepted_names, normalise
from dermiq.schema import Answer, Sample

_HEDGE = re.compile(
    r"[/,;?]|\b(?:or|versus|vs|possibly|probably|perhaps|maybe|either|could be|may be|might be|differential)\b"
)


def diagnosis(answer: Answer, sample: Sample) -> float | None:
    """Outcome: 1 if the answer is, after normalisation, exactly the target or one of its synonyms, else 0.

    None for conversation (so do the gates below).
    """
    if not sample.structured:
        return None
    return float(answer.diagnosis is not None and normalise(answer.diagnosis) in accepted_names(sample))


def well_formed(answer: Answer, sample: Sample) -> float | None:
    """Format gate: 1 if the completion has the structure asked for, else 0."""
    return float(answer.well_formed) if sample.structured else None


def unhedged(answer: Answer, sample: Sample) -> float | None:
    """Hedging gate: 0 if the answer leaves a choice ("A or B", "possibly A"), else 1.

    A name that is accepted as it stands may contain such words ("warts, molluscum").
    """
    if not sample.structured:
        return None
    if answer.diagnosis is None or diagnosis(answer, sample) == 1:
        return 1.0
    return float(_HEDGE.search(answer.diagnosis.lower()) is None)
