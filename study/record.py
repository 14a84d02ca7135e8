"""Record of a run of the study: its costs, its curves, and its outcome on every question of the test."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from dermiq.files import regular_bytes, write_atomically
from dermiq.schema import DataError

SAMPLES = 8
_TESTBED = "ground"  # the key in JSON, as the published records have it
_KINDS: Mapping[str, tuple[type, ...]] = {
    **dict.fromkeys(("name", "testbed", "variant", "setting", "fingerprint"), (str,)),
    **dict.fromkeys(("size", "seed", "best_step"), (int,)),
    **dict.fromkeys(("rate", "validation"), (int, float)),
    **dict.fromkeys(("seconds", "curves", "metrics"), (dict,)),
}


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of a run on the n questions of one domain, in the order of the data, which is the same for all runs.

    Attributes:
        target: [n] index into `classes` of what is right.
        classes: names that occur as targets.
        greedy: [n] 1 where the greedy answer is right.
        majority: [n] 1 where the most frequent of the sampled answers is right.
        named: [n] index into `classes` of the majority's answer, -1 for any other.
        sampled: [n] share of the sampled answers that are right.
        truthful: [n] share of the findings stated in the sampled reasoning that are true; 0 where none is stated.
        recalled: [n] share of the true findings that the sampled reasoning states.
        group: [n] number of the lesion or patient; empty where each question has its own.
        skin_type: [n] or empty.
        position: [n] letters of the right options of multiple choice, or empty.
        chosen: [n] letters of the chosen options, or empty.
    """

    target: tuple[int, ...]
    classes: tuple[str, ...]
    greedy: tuple[int, ...]
    majority: tuple[int, ...]
    named: tuple[int, ...]
    sampled: tuple[float, ...]
    truthful: tuple[float, ...]
    recalled: tuple[float, ...]
    group: tuple[int, ...] = ()
    skin_type: tuple[str, ...] = ()
    position: tuple[str, ...] = ()
    chosen: tuple[str, ...] = ()

    @classmethod
    def of(cls, found: Mapping[str, Sequence[Any]]) -> Outcomes:
        """From lists."""
        return cls(**{each.name: tuple(found.get(each.name, ())) for each in fields(cls)})


@dataclass(frozen=True)
class Record:
    """One finished run.

    Attributes:
        name: unique, and a path below the study's directory.
        testbed: a key of the study's testbeds.
        variant: a key of the study's variants, or of its starts.
        setting: what was changed besides (``group_size=4``); empty for nothing.
        size: labelled training images.
        seed: of data, model and sampling.
        fingerprint: of the configuration, start and rate included.
        rate: learning rate.
        seconds: of ``train`` and ``test``, by the clock of the process's own CPU time.
        curves: metric -> (optimiser step, value) pairs, as logged in training (``train/…``, ``val/…``).
        best_step: optimiser step of the checkpoint that validation chose; -1 where the last one was taken.
        validation: the chosen checkpoint's score on validation.
        domains: domain -> how the run did there; empty for tuning runs, which never see the test split.
        metrics: metrics of the test as a whole (``val``: of the validation for tuning runs).
    """

    name: str
    testbed: str
    variant: str
    setting: str
    size: int
    seed: int
    fingerprint: str
    rate: float
    seconds: Mapping[str, float]
    curves: Mapping[str, Sequence[tuple[int, float]]]
    best_step: int
    validation: float
    domains: Mapping[str, Outcomes] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)


def best(records: Iterable[Record]) -> Record:
    """The run with the best score on validation, of equals the one with the lower rate: what tuning chooses."""
    return max(records, key=lambda record: (record.validation, -record.rate))


def dumped(record: Record) -> str:
    """One line of JSON."""
    values = asdict(record)
    values[_TESTBED] = values.pop("testbed")
    return json.dumps(values, sort_keys=True, allow_nan=False, separators=(",", ":"))


def parsed(line: str) -> Record:
    """A record from its line of JSON.

    Raises:
        ValueError: if a value is not of its field's kind, or it is no JSON.
        KeyError: if one is missing.
        TypeError: if one is unknown.
    """
    try:
        values = json.loads(line)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if not isinstance(values, dict) or not isinstance(values["domains"], dict):
        raise ValueError("a line or its domains are no JSON object")
    if not all(isinstance(found, dict) for found in values["domains"].values()):
        raise ValueError("a domain is no JSON object")
    values["testbed"] = values.pop(_TESTBED)
    values["domains"] = {name: Outcomes.of(found) for name, found in values["domains"].items()}
    record = Record(**values)
    for name, kinds in _KINDS.items():
        value = getattr(record, name)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{name} is {str(value)[:40]!r}")
    return record


def read_records(path: Path) -> list[Record]:
    """The records of a published file, one per line.

    Raises:
        DataError: if it is missing or a line is none.
    """
    try:
        return [parsed(line) for line in regular_bytes(path).decode().splitlines()]
    except FileNotFoundError as error:
        raise DataError(f"there are no records at {path}: run `make reproduce` first.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is no file of study records ({error}): run `make reproduce` again.") from error


def write_records(path: Path, records: Iterable[Record]) -> None:
    """Publish records, sorted by name, one per line."""
    lines = sorted(dumped(record) for record in records)
    write_atomically(path, "".join(f"{line}\n" for line in lines))
