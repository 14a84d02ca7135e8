"""Data cards: where a data set comes from, on what terms, and what each of its labels means in the ontology."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from dermiq.kg import Terminology
from dermiq.kg.appearance import typical
from dermiq.prompts import normalise
from dermiq.schema import DataError

_KEYS = {"name", "title", "source", "citation", "licence", "attribution", "images", "labels"}


@dataclass(frozen=True)
class Meaning:
    """What a label means.

    Attributes:
        target: what to answer, in lower case: the name of the first concept, or what `says` gives.
        concepts: identifiers in the ontology; several where the label lumps conditions.
        synonyms: the other names of these concepts.
        findings: those typical of the first concept, see `dermiq.kg.appearance`; empty where `says` gives the name.
        count: images with that label, as published or counted; None where nobody says.
    """

    target: str
    concepts: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    count: int | None = None


@dataclass(frozen=True)
class DataCard:
    """A data set as its YAML in ``cards/`` describes it.

    Attributes:
        name: short name, also the file's name (``ham10000``).
        title: its own name.
        source: where it is published (DOI or web page).
        citation: of the work that describes it.
        licence: of its images, unless a row says otherwise.
        attribution: what to write beside its images, unless a row says otherwise.
        images: their number, as published.
        labels: raw label -> meaning; empty for data sets of questions.
    """

    name: str
    title: str
    source: str
    citation: str
    licence: str
    attribution: str
    images: int
    labels: Mapping[str, Meaning]

    def meaning(self, label: str, where: str) -> Meaning:
        """What a label means.

        Args:
            label: as the data set writes it.
            where: file and line, for the error.

        Raises:
            DataError: if the card does not know the label.
        """
        if label in self.labels:
            return self.labels[label]
        close = get_close_matches(label, self.labels, n=3) or list(self.labels)[:8]
        raise DataError(
            f"{where}: the label {label!r} is unknown to {self.title}; it has {len(self.labels)} labels, such as "
            f"{', '.join(map(repr, close))}. Correct or remove the row, or add the label to cards/{self.name}.yaml."
        )

    def with_labels_of(self, *others: DataCard) -> DataCard:
        """This card with the labels of others besides its own, for annotations of their images; without counts."""
        borrowed = {label: replace(meaning, count=None) for card in others for label, meaning in card.labels.items()}
        return replace(self, labels=borrowed | dict(self.labels))


@cache
def terminology() -> Terminology:
    """The names of the ontology, loaded once per process."""
    return Terminology()


@cache
def load_card(path: Path) -> DataCard:
    """Read a card.

    Raises:
        DataError: if it is missing, lacks an entry, or a label means a condition that the ontology does not have.
    """
    try:
        entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: the data card cannot be read ({error}).") from None
    if not isinstance(entries, dict) or set(entries) != _KEYS or entries["name"] != path.stem:
        raise DataError(f"{path}: a data card has the entries {', '.join(sorted(_KEYS))}, and is named after its name.")
    labels = {str(label): _meaning(f"{path}, {label!r}", entry) for label, entry in entries["labels"].items()}
    return DataCard(**(entries | {"labels": labels}))


def _meaning(where: str, entry: dict[str, Any]) -> Meaning:
    """A label's entry: ``{count: 327, means: [actinic keratosis, bowen disease]}``.

    ``says: NAME`` gives the answer where the ontology has no such condition; ``means`` then holds the nearest broader
    ones, whose names do not count as right, and may be empty.
    """
    if not set(entry) <= {"count", "means", "says"} or not (entry.get("means") or entry.get("says")):
        raise DataError(f"{where}: an entry has `means` or `says` (or both), and `count`.")
    concepts = tuple(_concept(where, name) for name in entry.get("means") or ())
    if "says" in entry:
        return Meaning(normalise(entry["says"]), concepts, count=entry.get("count"))
    return replace(meaning_of(concepts), count=entry.get("count"))


def meaning_of(concepts: tuple[str, ...]) -> Meaning:
    """The joint meaning of one or more concepts, given by identifier: the first gives the answer and the findings."""
    target, *synonyms = dict.fromkeys(name for concept in concepts for name in terminology().names(concept))
    return Meaning(target, concepts, tuple(synonyms), typical(terminology().graph, concepts[0]))


def _concept(where: str, name: str) -> str:
    concept = terminology().concept(name)
    if concept is None:
        raise DataError(f"{where}: the ontology has no condition {name!r}. `python -m dermiq.kg list` names them all.")
    return concept
