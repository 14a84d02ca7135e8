"""The plan of the study: its file as a list of runs, each with its configurations and the run that it starts from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from string import Template
from typing import Any

import yaml

from dermiq.run_directory import RunDirectory
from dermiq.schema import DataError

ROOT = Path(__file__).parents[1]  # of the repository: the study's file names configurations from here
FULL = "full"
DEPTH = 4  # values hold values: the training data a source of lesions, this the share of noise
SEEDS, START_SEEDS = 1000, 2000  # of training data; those of validation and test stand in the study's file
TUNING = "tuning"


@dataclass(frozen=True)
class Run:
    """One training, with its test unless it only tunes.

    Attributes:
        testbed: a key of the study's testbeds.
        variant: a key of its variants or of its starts.
        setting: a key of its settings.
        size: labelled training images.
        seed: of data, model and sampling.
        start: the run whose adapter it goes on from; None for a start.
        rate: learning rate; None takes that which tuning chose for `tuned_as`.
        tuned_as: the variant whose tuning decides the rate.
        tuning: whether it only tunes: it is validated, and never sees the test split.
    """

    testbed: str
    variant: str
    setting: str
    size: int
    seed: int
    start: Run | None = None
    rate: float | None = None
    tuned_as: str | None = None
    tuning: bool = False

    @property
    def name(self) -> str:
        """Unique, and a path."""
        parts = [self.testbed, self.variant, self.setting, f"n{self.size}", f"seed{self.seed}"]
        if self.tuning:
            parts = [self.testbed, TUNING, self.variant, f"rate{self.rate:g}"]
        return "/".join(part for part in parts if part)


@dataclass(frozen=True)
class Study:
    """The study: its file, and what the command line adds.

    Attributes:
        content: the file, at the scale that was chosen.
        values: placeholders that are the same for all runs: ``model``, ``data``.
    """

    content: Mapping[str, Any]
    values: Mapping[str, str] = field(default_factory=dict)

    def runs(self) -> list[Run]:
        """All runs, each after those that it needs; one that several experiments share comes once."""
        found: dict[str, Run] = {}
        for run in (*self._tuning(), *self._experiments()):
            if run.start is not None:
                found.setdefault(run.start.name, run.start)
            found.setdefault(run.name, run)
        return list(found.values())

    def _tuning(self) -> Iterator[Run]:
        for testbed, tuning in self.content["tuning"].items():
            for variant in tuning["variants"]:
                rates = tuning["rates"][self._of(variant)["kind"]]
                start = self._start(testbed, self._of(variant), tuning["start_seed"])
                for rate in rates:
                    yield Run(testbed, variant, "", tuning["size"], tuning["seed"], start, rate, tuning=True)

    def _experiments(self) -> Iterator[Run]:
        for experiment in self.content["experiments"].values():
            testbed = experiment["testbed"]
            for variant, setting, size, seed in product(
                experiment["variants"], experiment["settings"], experiment["sizes"], experiment["seeds"]
            ):
                yield self._run(testbed, variant, setting, size, seed)

    def _run(self, testbed: str, variant: str, setting: str, size: int, seed: int) -> Run:
        if variant in self.content["starts"]:
            return self._start_of(testbed, variant, seed)
        recipe = self._of(variant)
        changed = self.content["settings"][setting]
        start = self._start(testbed, recipe | changed, seed)
        return Run(testbed, variant, setting, size, seed, start, tuned_as=recipe.get("tuned_as", variant))

    def _start(self, testbed: str, recipe: Mapping[str, Any], seed: int) -> Run:
        return self._start_of(testbed, recipe.get("start", self.content["testbeds"][testbed]["start"]), seed)

    def _start_of(self, testbed: str, variant: str, seed: int) -> Run:
        recipe = self.content["starts"][variant]
        return Run(testbed, variant, "", recipe["size"], seed, rate=recipe["rate"])

    def _of(self, variant: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.content["variants"].get(variant) or self.content["starts"][variant]
        return found

    def kind(self, run: Run) -> str:
        """``start``, ``rl`` or ``supervised``."""
        kind: str = self._of(run.variant)["kind"]
        return kind

    def before(self, run: Run) -> str | None:
        """Path of the configuration of a prediction with the run's start that comes before training; None for most."""
        before: str | None = self._of(run.variant).get("before")
        return before

    def configs(self, run: Run) -> list[str]:
        """Paths of a run's configurations from the repository's root; later ones override earlier ones."""
        recipe, testbed = self._of(run.variant), self.content["testbeds"][run.testbed]
        return [testbed["configs"][recipe["kind"]], *recipe.get("configs", ())]

    def filled(self, path: str, run: Run, rate: float, root: Path) -> str:
        """A configuration's text with its placeholders (``$size``) filled in, whose values may hold further ones.

        Values come from the testbed's kind, the testbed, the variant, the setting and the run, later ones winning.

        Raises:
            DataError: if it is missing or names a placeholder that nothing fills.
        """
        values = {name: _text(value) for name, value in self._values(run)}
        values |= dict(self.values) | {
            "size": str(run.size),
            "seed": str(run.seed),
            "data_seed": str((SEEDS if run.start else START_SEEDS) + run.seed),
            "rate": f"{rate:.10f}",
            "run": str(root / run.name),
            "start": str(RunDirectory(root / run.start.name).adapter) if run.start else "",
        }
        try:
            text = (ROOT / path).read_text(encoding="utf-8")
            for _ in range(DEPTH):
                text = Template(text).substitute(values)
        except FileNotFoundError as error:
            raise DataError(f"The study names the configuration {path}, which does not exist.") from error
        except (KeyError, ValueError) as error:
            raise DataError(f"{path}: nothing fills its placeholder {error} for {run.name}.") from error
        return text

    def _values(self, run: Run) -> Iterator[tuple[str, Any]]:
        recipe, testbed = self._of(run.variant), self.content["testbeds"][run.testbed]
        yield from testbed.get("kinds", {}).get(recipe["kind"], {}).items()
        for part in (testbed, recipe, self.content["settings"][run.setting]):
            yield from part.get("values", {}).items()

    def fingerprint(self, run: Run, rate: float) -> str:
        """Hash of a run's filled configurations, its start's included; where its files are makes no difference."""
        configs = [*self.configs(run), *filter(None, [self.before(run)])]
        anywhere = replace(self, values=dict.fromkeys(self.values, "."))
        filled = [
            *(yaml.safe_load(anywhere.filled(path, run, rate, Path())) for path in configs),
            self.fingerprint(run.start, run.start.rate or 0.0) if run.start else "",
        ]
        return hashlib.blake2b(json.dumps(filled).encode(), digest_size=8).hexdigest()


def read_study(path: Path, scale: str, values: Mapping[str, str]) -> Study:
    """Read the study's file; a scale other than ``full`` replaces parts of its experiments and of its tuning.

    Raises:
        DataError: if the file cannot be read or has no such scale.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"The study {path} cannot be read: {error}") from error
    scales = content.pop("scales", {})
    if scale != FULL:
        if scale not in scales:
            raise DataError(f"{path} has no scale {scale!r}; it has {', '.join([FULL, *scales])}.")
        content |= {name: _scaled(content[name], changed) for name, changed in scales[scale].items()}
    return Study(content, values)


def _scaled(whole: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """The entries that a scale names, each with what it changes of them."""
    return {name: whole[name] | (change or {}) for name, change in changed.items()}


def _text(value: Any) -> str:
    """A value as it stands in a configuration; what is a placeholder alone loses its quotation marks."""
    return value if isinstance(value, str) else re.sub(r'"(\$\w+)"', r"\1", json.dumps(value))
