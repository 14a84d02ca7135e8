"""Published checklists for pigmented lesions as rules that add up points.

Two lists are called seven-point checklist: `SEVEN_POINT` looks through the dermatoscope, `WEIGHTED_SEVEN_POINT` asks
and looks with the naked eye. They share no item and must not be mixed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dermiq.schema import KnowledgeError


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a checklist.

    Attributes:
        name: what is looked for.
        weight: points for each unit of its value.
        lowest: its lowest value; an item whose lowest value is 0 may be left out.
        highest: its highest value; 1 for what is either there or not.
        concept: identifier of the same thing in the ontology, empty if it has none.
    """

    name: str
    weight: float
    concept: str = ""
    lowest: int = 0
    highest: int = 1


@dataclass(frozen=True, slots=True)
class Result:
    """Total and verdict of a checklist."""

    total: float
    verdict: str


@dataclass(frozen=True)
class Checklist:
    """Items with weights, and what a total means.

    Attributes:
        name: of the list.
        items: its lines.
        verdicts: (total from which it holds, verdict), lowest first.
        citation: where it was published.
    """

    name: str
    items: tuple[Item, ...]
    verdicts: tuple[tuple[float, str], ...]
    citation: str

    def score(self, findings: Mapping[str, int]) -> Result:
        """Add up the points.

        Args:
            findings: item name -> value, True or 1 for what is there.

        Raises:
            KnowledgeError: if an item is not of this list, is missing, or has an impossible value.
        """
        names = [item.name for item in self.items]
        if unknown := [name for name in findings if name not in names]:
            raise KnowledgeError(f"{self.name} has no item {unknown[0]!r}. Its items: {', '.join(names)}.")
        total = round(sum(item.weight * self._value(item, findings) for item in self.items), 2)
        return Result(total, next(verdict for least, verdict in reversed(self.verdicts) if total >= least))

    def present(self, concepts: Iterable[str]) -> dict[str, int]:
        """Findings from identifiers of the ontology, such as the values of a condition's facts."""
        seen = frozenset(concepts)
        return {item.name: 1 for item in self.items if item.concept in seen}

    def _value(self, item: Item, findings: Mapping[str, int]) -> int:
        if item.name not in findings and item.lowest > 0:
            raise KnowledgeError(
                f"{self.name}: {item.name!r} is missing; give a whole number from {item.lowest} to {item.highest}."
            )
        value = findings.get(item.name, 0)
        if not isinstance(value, int) or not item.lowest <= value <= item.highest:
            raise KnowledgeError(
                f"{self.name}: {item.name!r} is {value!r}; give a whole number from {item.lowest} to {item.highest}."
            )
        return value


SEVEN_POINT = Checklist(
    name="seven-point checklist of dermoscopy",
    items=(
        Item("atypical pigment network", 2, "atypical_pigment_network"),
        Item("blue-whitish veil", 2, "blue_white_veil"),
        Item("atypical vascular pattern", 2, "atypical_vessels"),
        Item("irregular streaks", 1, "irregular_streaks"),
        Item("irregular pigmentation", 1, "irregular_pigmentation"),
        Item("irregular dots or globules", 1, "irregular_dots_and_globules"),
        Item("regression structures", 1, "regression_structures"),
    ),
    verdicts=((0, "not suspicious"), (3, "suspicious of melanoma")),
    citation=(
        "Argenziano G et al. Epiluminescence microscopy for the diagnosis of doubtful melanocytic skin lesions. "
        "Arch Dermatol 1998;134:1563-1570"
    ),
)

ABCD = Checklist(
    name="ABCD rule of dermoscopy",
    items=(
        Item("asymmetry", 1.3, highest=2),  # axes
        Item("border", 0.1, highest=8),  # eighths that end abruptly
        Item("colours", 0.5, lowest=1, highest=6),
        Item("differential structures", 0.5, lowest=1, highest=5),
    ),
    # The rule says "more than 5.45"; totals are whole tenths, so that none is 5.45.
    verdicts=((0, "benign"), (4.75, "suspicious"), (5.45, "suggestive of melanoma")),
    citation=(
        "Nachbar F et al. The ABCD rule of dermatoscopy: high prospective value in the diagnosis of doubtful "
        "melanocytic skin lesions. J Am Acad Dermatol 1994;30:551-559"
    ),
)

WEIGHTED_SEVEN_POINT = Checklist(
    name="weighted seven-point checklist",
    items=(
        Item("change in size", 2, "change_in_size"),
        Item("irregular shape", 2, "change_in_shape"),
        Item("irregular colour", 2, "variegated"),
        Item("diameter of 7 mm or more", 1),
        Item("inflammation", 1),
        Item("oozing", 1, "weeping"),
        Item("change in sensation", 1),
    ),
    verdicts=((0, "no referral by this list"), (3, "refer urgently")),
    citation="NICE guideline NG12, Suspected cancer: recognition and referral, 2015, recommendation 1.7.1",
)
