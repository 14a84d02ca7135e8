"""Selection of records: the cells of an experiment, the runs of each cell, and their titles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from dermiq.schema import DataError
from study.record import Outcomes, Record


@dataclass(frozen=True)
class Cell:
    """One row of a table: runs that differ in the seed alone.

    Attributes:
        variant: a key of the study's variants or of its starts.
        setting: a key of its settings.
        size: labelled training images.
    """

    variant: str
    setting: str
    size: int


Index = Mapping[tuple[str, Cell], Mapping[int, Record]]


def indexed(records: Sequence[Record]) -> Index:
    """(Ground, cell) -> seed -> the record of the run that was tested.

    Raises:
        DataError: if there are two for the same place.
    """
    found: dict[tuple[str, Cell], dict[int, Record]] = {}
    for record in records:
        if not record.domains:  # a tuning run, which saw no test
            continue
        seeds = found.setdefault((record.testbed, Cell(record.variant, record.setting, record.size)), {})
        if record.seed in seeds:
            raise DataError(
                f"The records {seeds[record.seed].name!r} and {record.name!r} are of the same run, so that it is "
                "unclear which of them counts. Delete one, and run `make reproduce` again."
            )
        seeds[record.seed] = record
    return found


@dataclass(frozen=True)
class Experiment:
    """One experiment of the study's file with the records there are.

    Attributes:
        name: its key.
        content: its entry.
        study: the whole file.
        index: all records.
    """

    name: str
    content: Mapping[str, Any]
    study: Mapping[str, Any]
    index: Index

    @property
    def domains(self) -> Mapping[str, str]:
        """Key -> title."""
        found: Mapping[str, str] = self.content["domains"]
        return found

    @property
    def metrics(self) -> Sequence[str]:
        """Names in `study.statistics.METRICS`; the first one is the experiment's main outcome."""
        found: Sequence[str] = self.content["metrics"]
        return found

    @property
    def variants(self) -> Sequence[str]:
        """In the file's order."""
        found: Sequence[str] = self.content["variants"]
        return found

    @property
    def settings(self) -> Sequence[str]:
        """In the file's order."""
        found: Sequence[str] = self.content["settings"]
        return found

    @property
    def sizes(self) -> Sequence[int]:
        """In the file's order."""
        found: Sequence[int] = self.content["sizes"]
        return found

    @property
    def cells(self) -> list[Cell]:
        """Those to compare next to each other; a start once, whatever the settings and sizes."""
        found = product(self.settings, self.sizes, self.variants)
        return list(dict.fromkeys(self.cell(variant, setting, size) for setting, size, variant in found))

    def cell(self, variant: str, setting: str, size: int) -> Cell:
        """The cell of a variant; a start has been trained on data of its own, whatever is compared with it."""
        if self.is_start(variant):
            return Cell(variant, "", self.study["starts"][variant]["size"])
        return Cell(variant, setting, size)

    def is_start(self, variant: str) -> bool:
        """True of a variant that others start from."""
        return variant in self.study.get("starts", {})

    def start(self, cell: Cell) -> Cell | None:
        """The cell whose runs those of a cell started from: as its setting says, else its variant, else the testbed."""
        if self.is_start(cell.variant):
            return None
        testbed = self.study["testbeds"][self.content["testbed"]]
        recipe = {**testbed, **self.study["variants"][cell.variant], **self.study["settings"][cell.setting]}
        return self.cell(recipe["start"], "", 0)

    def runs(self, cell: Cell) -> dict[int, Record]:
        """Seed -> record, of the experiment's seeds."""
        found = self.index.get((self.content["testbed"], cell), {})
        return {seed: found[seed] for seed in self.content["seeds"] if seed in found}

    def outcomes(self, cell: Cell, domain: str) -> dict[int, Outcomes]:
        """Seed -> how the runs of a cell did on a domain."""
        runs = self.runs(cell)
        return {seed: record.domains[domain] for seed, record in runs.items() if domain in record.domains}

    @property
    def found(self) -> int:
        """Number of runs that are recorded."""
        return sum(len(self.runs(cell)) for cell in self.cells)

    @property
    def planned(self) -> int:
        """Number of runs that the file plans."""
        return len(self.cells) * len(self.content["seeds"])

    def title(self, variant: str) -> str:
        """Title of a variant or a start."""
        return title_of(self.study, variant)

    def place(self, cell: Cell) -> list[str]:
        """Setting and size of a cell, where the experiment has several; empty for a start, which has its own."""
        parts = []
        if len(self.settings) > 1:
            parts.append("" if self.is_start(cell.variant) else str(self.study["settings"][cell.setting]["title"]))
        if len(self.sizes) > 1:
            parts.append("" if self.is_start(cell.variant) else f"{cell.size} images")
        return parts

    @property
    def place_header(self) -> list[str]:
        """What the columns of `place` are called."""
        return ["setting"] * (len(self.settings) > 1) + ["size"] * (len(self.sizes) > 1)


def title_of(study: Mapping[str, Any], variant: str) -> str:
    """Title of a variant or a start.

    Raises:
        DataError: if the study has neither.
    """
    found = study["variants"].get(variant) or study.get("starts", {}).get(variant)
    if found is None:
        raise DataError(f"The study names {variant!r}, which is neither one of its variants nor one of its starts.")
    return str(found["title"])


def experiments(study: Mapping[str, Any], records: Sequence[Record]) -> dict[str, Experiment]:
    """Key -> experiment, in the file's order.

    Raises:
        DataError: if two records are of the same run.
    """
    index = indexed(records)
    return {name: Experiment(name, content, study, index) for name, content in study["experiments"].items()}
