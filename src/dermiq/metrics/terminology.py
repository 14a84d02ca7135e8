"""The protocol by which metrics look up names of conditions; YAML gives it as `dermiq.kg.Terminology`."""

from __future__ import annotations

from typing import Protocol


class Terminology(Protocol):
    """What the names of conditions mean."""

    def concept(self, name: str) -> str | None:
        """The identifier of the condition of that name or synonym; None if there is none."""

    def names(self, concept: str) -> tuple[str, ...]:
        """The name of a condition, then its synonyms."""

    def lineage(self, concept: str) -> frozenset[str]:
        """A condition or a category with all that lies above it."""

    def malignant(self, concept: str) -> bool | None:
        """True for cancer, False for what is none, None where unknown."""
