"""Diagnosis samples without reasoning, as most data sets have them."""

from __future__ import annotations

from dataclasses import replace

from dermiq.datamodules.sources.derived.questions import Questions
from dermiq.schema import Sample


class LabelsOnly(Questions):
    """The diagnoses of a source without findings, so that supervised training sees the bare answer.

    Args:
        source: its samples ask for the diagnosis.
    """

    def derive(self, sample: Sample, place: int) -> Sample:
        """The sample with an empty reasoning."""
        return replace(sample, findings={}, findings_observed=False, reasoning="")
