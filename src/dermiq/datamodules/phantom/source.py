"""The phantom: lesions drawn from the atlas, so that what a model says it saw can be checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import overload

import numpy as np
from PIL import Image

from dermiq.atlas import ATTRIBUTES, CONDITIONS, VOCABULARY, Condition
from dermiq.datamodules.phantom.canvas import SKIN_TONES
from dermiq.datamodules.phantom.lesion import draw
from dermiq.datamodules.sources.base import Source
from dermiq.schema import DataError, Sample, SkinType

_FINDINGS_STREAM, _DRAWING_STREAM = 0, 1


class PhantomSource(Source):
    """Drawn skin lesions with known findings; nothing is stored, sample i is a function of (seed, i).

    Conditions are equally likely, the findings are independent given the condition, the skin type
    is independent of both.
    """

    def __init__(self, count: int, seed: int = 0, size: int = 96, conditions: list[str] | None = None) -> None:
        """Describe a phantom data set.

        Args:
            count: number of samples.
            seed: of the whole set; two seeds share no sample.
            size: width and height of the images, in pixels.
            conditions: names of the atlas to draw from; None means all.

        Raises:
            DataError: if a number is not positive or a condition is not in the atlas.
        """
        if count < 1 or size < 16 or seed < 0:
            raise DataError(
                f"the phantom cannot draw count={count}, size={size}, seed={seed}: use a count of at least 1, "
                "a size of at least 16 pixels and a seed of at least 0."
            )
        unknown = [name for name in conditions or () if name not in CONDITIONS]
        if unknown or conditions == []:
            raise DataError(
                f"the phantom cannot draw {unknown or 'no conditions'}: use some of {', '.join(CONDITIONS)}."
            )
        self.count = count
        self.seed = seed
        self.size = size
        self.conditions: tuple[Condition, ...] = tuple(CONDITIONS[name] for name in conditions or CONDITIONS)

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
        """Draw the findings of one sample, or of a range."""
        if isinstance(index, slice):
            return [self._sample(i) for i in range(*index.indices(self.count))]
        if not -self.count <= index < self.count:
            raise IndexError(index)
        return self._sample(index % self.count)

    def image(self, reference: str) -> Image.Image:
        """Draw the image of one of this source's references, as RGB.

        Raises:
            DataError: if the reference is not one of this source.
        """
        match = re.fullmatch(rf"phantom-{self.seed}-(\d+)\.png", reference)
        if match is None or int(match[1]) >= self.count:
            raise DataError(f"{reference}: no image of this phantom (seed {self.seed}, {self.count} samples).")
        index = int(match[1])
        _, findings, tone = self._draw_findings(index)
        rng = np.random.default_rng((self.seed, index, _DRAWING_STREAM))
        return Image.fromarray(draw(findings, tone, self.size, rng))

    def bayes_accuracy(self) -> float:
        """Accuracy of the best possible reader: the Bayes rule on the true findings, by enumeration.

        With equally likely conditions it is the mean over conditions of the probability that none
        other explains the findings better: sum over findings f of max over c of p(f | c) / C.
        """
        shape = (len(self.conditions), prod(len(VOCABULARY[attribute]) for attribute in ATTRIBUTES))
        likelihood = np.empty(shape)
        for row, condition in zip(likelihood, self.conditions, strict=True):
            joint = np.ones(1)
            for attribute in ATTRIBUTES:
                shares = [condition.findings[attribute].get(value, 0.0) for value in VOCABULARY[attribute]]
                joint = np.multiply.outer(joint, shares).ravel()
            row[:] = joint
        return float(likelihood.max(axis=0).sum() / len(self.conditions))

    def _draw_findings(self, index: int) -> tuple[Condition, dict[str, str], str]:
        """The condition, the findings (one value per attribute) and the skin type of a sample."""
        rng = np.random.default_rng((self.seed, index, _FINDINGS_STREAM))
        condition = self.conditions[int(rng.integers(len(self.conditions)))]
        findings = {}
        for attribute in ATTRIBUTES:
            values = condition.findings[attribute]
            position = np.searchsorted(np.cumsum(list(values.values())), rng.random(), side="right")
            findings[attribute] = list(values)[min(int(position), len(values) - 1)]
        return condition, findings, list(SKIN_TONES)[int(rng.integers(len(SKIN_TONES)))]

    def _sample(self, index: int) -> Sample:
        condition, findings, tone = self._draw_findings(index)
        name = f"phantom-{self.seed}-{index}"
        return Sample(
            id=name,
            images=(f"{name}.png",),
            target=condition.name,
            label=condition.name,
            group=name,
            synonyms=condition.synonyms,
            findings={attribute: (value,) for attribute, value in findings.items()},
            findings_drawn=True,
            skin_type=SkinType(scale="fitzpatrick", value=tone, how="drawn"),
            licence="CC0-1.0",
            attribution="DermIQ phantom",
        )
