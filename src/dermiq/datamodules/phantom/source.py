"""The phantom: synthetic lesions rendered from known findings, so that what a model says it sees can be checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import inf
from typing import overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dermiq.datamodules.phantom.canvas import PLAIN, SKIN_TONES, Camera
from dermiq.datamodules.phantom.lesion import render
from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.reading.card import terminology
from dermiq.findings import VOCABULARY
from dermiq.kg.appearance import appearance
from dermiq.schema import DataError, Sample, SkinType

CONDITIONS = (
    "melanocytic nevus",
    "melanoma",
    "seborrheic keratosis",
    "basal cell carcinoma",
    "actinic keratosis",
    "squamous cell carcinoma",
    "dermatofibroma",
    "cherry angioma",
    "psoriasis",
    "vitiligo",
    "tinea corporis",
    "lichen planus",
    "molluscum contagiosum",
    "common wart",
    "granuloma annulare",
    "herpes zoster",
)
RULER = 0.1
MOST_SAMPLES, LARGEST = 10_000_000, 4096  # beyond them a number is a slip of the keyboard


@dataclass(frozen=True)
class Lesion:
    """The ground truth of one sample.

    Attributes:
        condition: the condition that the image shows.
        label: the condition that the sample names; another one where the label is noise.
        findings: one value per attribute.
        tone: Fitzpatrick type.
        ruler: a ruler lies beside the lesion.
    """

    condition: str
    label: str
    findings: Mapping[str, str]
    tone: str
    ruler: bool


class PhantomSource(Source):
    """Synthetic skin lesions with known findings; nothing is stored, sample i is a function of the arguments and i.

    A condition is sampled, then its findings, independently of each other, the skin type and whether a ruler lies in
    the image. Options inject what real data suffer from: imbalance, confounding, label noise. Without them conditions
    and skin types are equally likely, and skin type and ruler are no evidence for any condition.

    Under label noise a sample's target, label, synonyms and concepts are those of the wrong condition, as in a data
    set whose annotator erred; its findings stay true of the image. `lesion` gives both conditions.

    Args:
        count: number of samples.
        seed: of the whole set; two seeds share no sample.
        size: width and height of the images, in pixels.
        conditions: names to sample from, of `CONDITIONS`; None means all.
        prior: condition -> its weight in sampling, 1 by default; class imbalance.
        label_noise: share of the samples that name another condition, sampled uniformly from the others, in [0, 1].
        tones: Fitzpatrick type -> its weight in sampling, 1 by default; skin-tone imbalance.
        tones_given: condition -> `tones` of its own; so skin type is confounded with the diagnosis.
        ruler: probability of a ruler in the image.
        ruler_given: condition -> that probability of its own; so a ruler gives the diagnosis away.
        camera: another camera than the plain one, for a domain shift: the same lesions under other optics.

    Raises:
        DataError: if a number makes no sense, or a condition or a skin type is unknown.
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        size: int = 96,
        conditions: list[str] | None = None,
        prior: dict[str, float] | None = None,
        label_noise: float = 0.0,
        tones: dict[str, float] | None = None,
        tones_given: dict[str, dict[str, float]] | None = None,
        ruler: float = RULER,
        ruler_given: dict[str, float] | None = None,
        camera: Camera | None = None,
    ) -> None:
        if not (1 <= count <= MOST_SAMPLES and 16 <= size <= LARGEST and 0 <= seed < 2**63):
            raise DataError(
                f"the phantom cannot render count={count}, size={size}, seed={seed}: use a count of 1 to "
                f"{MOST_SAMPLES}, a size from 16 to {LARGEST} pixels and a seed from 0 to 2^63 - 1."
            )
        self.count, self.seed, self.size = count, seed, size
        self.camera = PLAIN if camera is None else camera
        self.conditions = _chosen(conditions)
        for given in (prior, tones_given, ruler_given):
            _known("conditions", given or {}, self.conditions)
        self.label_noise = _share("label_noise", label_noise)
        if label_noise and len(self.conditions) == 1:
            raise DataError("label noise needs at least two conditions: there is no other one to name.")
        self.prior = _weighted("prior", prior or {}, self.conditions)
        tones_given, ruler_given = tones_given or {}, ruler_given or {}
        self.tones = {
            name: _weighted("tones", tones_given.get(name, tones or {}), tuple(SKIN_TONES)) for name in self.conditions
        }
        self.ruler = {name: _share("ruler", ruler_given.get(name, ruler)) for name in self.conditions}
        graph = terminology().graph
        self.findings = {name: appearance(graph, name) for name in self.conditions}
        self._concepts = {name: graph.find(name) for name in self.conditions}

    def load(self) -> None:
        """Nothing to read."""

    def __len__(self) -> int:
        """Number of samples."""
        return self.count

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        """One sample, or those of a range."""
        if isinstance(index, slice):
            return [self._sample(i) for i in range(*index.indices(self.count))]
        return self._sample(self._position(index))

    def lesion(self, index: int) -> Lesion:
        """The ground truth of a sample.

        Raises:
            IndexError: if there is no such sample.
        """
        return self._lesion(self._position(index))[0]

    def image(self, reference: str) -> Image.Image:
        """The image of one of this source's references, rendered as RGB.

        Raises:
            DataError: if the reference is not one of this source.
        """
        match = re.fullmatch(rf"phantom-{self.seed}-(\d+)\.png", reference)
        if match is None or int(match[1]) >= self.count:
            raise DataError(f"{reference}: no image of this phantom (seed {self.seed}, {self.count} samples).")
        lesion, rng = self._lesion(int(match[1]))
        return Image.fromarray(render(lesion.findings, lesion.tone, self.size, rng, lesion.ruler, self.camera))

    def bayes_accuracy(self) -> float:
        """Accuracy of the best possible reader of the samples' labels, by enumeration.

        It sees findings, skin type and ruler without error and knows every probability. Without label noise it is
        right with the sum, over all that can be seen, of max over conditions of p(condition) p(seen | condition).
        With label noise e among C conditions a sample names its own with 1 - e and each other with e / (C - 1), so
        what the reader gains by the right condition shrinks to 1 - e - e / (C - 1); where that is negative, the least
        likely condition is the best answer.
        """
        other = self.label_noise / max(len(self.conditions) - 1, 1)
        gain = 1.0 - self.label_noise - other
        best = np.maximum if gain >= 0.0 else np.minimum
        total = 0.0
        for tone in SKIN_TONES:
            for ruled in (False, True):
                found: NDArray[np.float64] | None = None
                for name in self.conditions:
                    ruler = self.ruler[name] if ruled else 1.0 - self.ruler[name]
                    joint = self.prior[name] * self.tones[name][tone] * ruler * self._likelihood[name]
                    found = joint if found is None else best(found, joint, out=joint)
                total += 0.0 if found is None else float(found.sum())
        return other + gain * total

    @cached_property
    def _likelihood(self) -> dict[str, NDArray[np.float64]]:
        """Condition -> probability of each combination of findings given it, in one fixed order."""
        seen = {
            attribute: [value for value in values if any(value in of[attribute] for of in self.findings.values())]
            for attribute, values in VOCABULARY.items()
        }
        likelihood = {}
        for name, of in self.findings.items():
            joint = np.ones(1)
            for attribute, values in seen.items():
                joint = np.multiply.outer(joint, [of[attribute].get(value, 0.0) for value in values]).ravel()
            likelihood[name] = joint
        return likelihood

    def _position(self, index: int) -> int:
        if not -self.count <= index < self.count:
            raise IndexError(index)
        return index % self.count

    def _lesion(self, index: int) -> tuple[Lesion, np.random.Generator]:
        """The ground truth of a sample, and the generator that renders its image."""
        rng = np.random.default_rng((self.seed, index))
        condition = label = _pick(self.prior, rng)
        noise, other = rng.random(), rng.random()
        if noise < self.label_noise:
            others = [name for name in self.conditions if name != condition]
            label = others[int(other * len(others))]
        findings = {attribute: _pick(of, rng) for attribute, of in self.findings[condition].items()}
        tone = _pick(self.tones[condition], rng)
        return Lesion(condition, label, findings, tone, rng.random() < self.ruler[condition]), rng

    def _sample(self, index: int) -> Sample:
        lesion, _ = self._lesion(index)
        name = f"phantom-{self.seed}-{index}"
        concept = self._concepts[lesion.label]
        return Sample(
            id=name,
            images=(f"{name}.png",),
            target=concept.label,
            label=concept.label,
            group=name,
            synonyms=concept.synonyms,
            concepts=(concept.id,),
            findings={attribute: (value,) for attribute, value in lesion.findings.items()},
            findings_observed=True,
            site=lesion.findings["site"],
            skin_type=SkinType(scale="fitzpatrick", value=lesion.tone, how="rendered"),
            dataset="phantom",
            licence="CC0-1.0",
            attribution="DermIQ phantom",
        )


def _pick(shares: Mapping[str, float], rng: np.random.Generator) -> str:
    """A key, as often as its share says; the shares add up to 1."""
    left = rng.random()
    for key, share in shares.items():
        left -= share
        if left < 0.0:
            return key
    return max(shares, key=shares.__getitem__)  # where rounding left a rest


def _chosen(conditions: list[str] | None) -> tuple[str, ...]:
    if conditions is None:
        return CONDITIONS
    _known("conditions", conditions, CONDITIONS)
    if not conditions or len(set(conditions)) < len(conditions):
        raise DataError(f"the phantom takes each of its conditions once; got {', '.join(conditions) or 'none'}.")
    return tuple(conditions)


def _known(what: str, names: Iterable[str], known: Sequence[str]) -> None:
    if unknown := [name for name in names if name not in known]:
        raise DataError(f"the phantom does not know the {what} {', '.join(unknown)}: use some of {', '.join(known)}.")


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise DataError(f"the phantom's {name} is a share between 0 and 1; got {value}.")
    return value


def _weighted(name: str, weights: Mapping[str, float], keys: Sequence[str]) -> dict[str, float]:
    """The share of each key: its weight, by default 1, divided by the sum of all."""
    _known(name, weights, keys)
    values = {key: float(weights.get(key, 1.0)) for key in keys}
    total = sum(values.values())
    if min(values.values()) < 0.0 or not 0.0 < total < inf:
        raise DataError(f"the phantom's {name} needs weights of at least 0, not all of them 0; got {dict(weights)}.")
    return {key: value / total for key, value in values.items()}
