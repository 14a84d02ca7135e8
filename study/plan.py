"""From the study's file to its runs: which there are, what each is told, and what has to be there before it."""

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

PACKAGE = Path(__file__).parents[1]  # the study names its configurations from here, as from the repository
FULL = "full"
DEPTH = 4  # values hold values: the training data the drawn lesions, these the share of noise
SEEDS, START_SEEDS = 1000, 2000  # of training data; those of validation and test stand in the study's file
TUNING = "tuning"


@dataclass(frozen=True)
class Run:
    """One training, with its test unless it only tunes.

    Attributes:
        ground: a key of the study's grounds.
        variant: a key of its variants or of its starts.
        setting: a key of its settings.
        size: labelled training images.
        seed: of data, model and sampling.
        start: the run whose adapter it goes on from; None for a start.
        rate: learning rate; None takes that which tuning chose for `tuned_as`.
        tuned_as: the variant whose tuning decides the rate.
        tuning: whether it only tunes: it is validated, and never sees the test split.
    """

    ground: str
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
        parts = [self.ground, self.variant, self.setting, f"n{self.size}", f"seed{self.seed}"]
        if self.tuning:
            parts = [self.ground, TUNING, self.variant, f"rate{self.rate:g}"]
        return "/".join(part for part in parts if part)


@dataclass(frozen=True)
class Study:
    """The study's file, and what the command line says besides.

    Attributes:
        content: the file, at the scale asked for.
        values: what its configurations may name: ``model``, ``data``.
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
        for ground, tuning in self.content["tuning"].items():
            for variant in tuning["variants"]:
                rates = tuning["rates"][self._of(variant)["kind"]]
                start = self._start(ground, self._of(variant), tuning["start_seed"])
                for rate in rates:
                    yield Run(ground, variant, "", tuning["size"], tuning["seed"], start, rate, tuning=True)

    def _experiments(self) -> Iterator[Run]:
        for experiment in self.content["experiments"].values():
            ground = experiment["ground"]
            for variant, setting, size, seed in product(
                experiment["variants"], experiment["settings"], experiment["sizes"], experiment["seeds"]
            ):
                yield self._run(ground, variant, setting, size, seed)

    def _run(self, ground: str, variant: str, setting: str, size: int, seed: int) -> Run:
        if variant in self.content["starts"]:
            return self._start_of(ground, variant, seed)
        recipe = self._of(variant)
        changed = self.content["settings"][setting]
        start = self._start(ground, recipe | changed, seed)
        return Run(ground, variant, setting, size, seed, start, tuned_as=recipe.get("tuned_as", variant))

    def _start(self, ground: str, recipe: Mapping[str, Any], seed: int) -> Run:
        return self._start_of(ground, recipe.get("start", self.content["grounds"][ground]["start"]), seed)

    def _start_of(self, ground: str, variant: str, seed: int) -> Run:
        recipe = self.content["starts"][variant]
        return Run(ground, variant, "", recipe["size"], seed, rate=recipe["rate"])

    def _of(self, variant: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.content["variants"].get(variant) or self.content["starts"][variant]
        return found

    def kind(self, run: Run) -> str:
        """``start``, ``rl`` or ``supervised``."""
        kind: str = self._of(run.variant)["kind"]
        return kind

    def before(self, run: Run) -> str | None:
        """The configuration of what the policy that a run starts from has to answer first, if any."""
        before: str | None = self._of(run.variant).get("before")
        return before

    def configs(self, run: Run) -> list[str]:
        """Paths of a run's configurations from the repository's root; later ones override earlier ones."""
        recipe, ground = self._of(run.variant), self.content["grounds"][run.ground]
        return [ground["configs"][recipe["kind"]], *recipe.get("configs", ())]

    def filled(self, path: str, run: Run, rate: float, root: Path) -> str:
        """A configuration's text with its placeholders (``$size``) filled in, whose values may hold further ones.

        Values come from the ground, the variant, the setting and the run itself, in this order.

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
            text = (PACKAGE / path).read_text(encoding="utf-8")
            for _ in range(DEPTH):
                text = Template(text).substitute(values)
        except FileNotFoundError as error:
            raise DataError(f"The study names the configuration {path}, which does not exist.") from error
        except (KeyError, ValueError) as error:
            raise DataError(f"{path}: nothing fills its placeholder {error} for {run.name}.") from error
        return text

    def _values(self, run: Run) -> Iterator[tuple[str, Any]]:
        recipe, ground = self._of(run.variant), self.content["grounds"][run.ground]
        yield from ground.get("kinds", {}).get(recipe["kind"], {}).items()
        for part in (ground, recipe, self.content["settings"][run.setting]):
            yield from part.get("values", {}).items()

    def fingerprint(self, run: Run, rate: float) -> str:
        """Changes with whatever a run is told, its start included, but not with where its files are."""
        configs = [*self.configs(run), *filter(None, [self.before(run)])]
        anywhere = replace(self, values=dict.fromkeys(self.values, "."))
        told = [
            *(yaml.safe_load(anywhere.filled(path, run, rate, Path())) for path in configs),
            self.fingerprint(run.start, run.start.rate or 0.0) if run.start else "",
        ]
        return hashlib.blake2b(json.dumps(told).encode(), digest_size=8).hexdigest()


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
