"""The interface between reading and judging: a reader turns a text about a case into claims."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from dermiq.kg.language.claims import Claim


class Extraction(NamedTuple):
    """What a reader made of a text.

    Attributes:
        claims: in the order of the text, their words counted as by `dermiq.kg.linking.words`.
        unread: first and last character (exclusive) of each part that holds words but could not be read.
    """

    claims: Sequence[Claim]
    unread: Sequence[tuple[int, int]] = ()


class Reader(Protocol):
    """Extracts the claims of texts, in the vocabulary of a graph; whether they are true is judged elsewhere."""

    def read(self, text: str, case: str) -> Extraction:
        """What a text says about a case, a condition given by identifier."""
