"""Diagnosis samples with other reasoning: with mistakes, typical of the condition, or random."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from random import Random

from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.derived.questions import Questions
from dermiq.datamodules.sources.reading.card import terminology
from dermiq.findings import VOCABULARY
from dermiq.kg.appearance import typical
from dermiq.prompts import describe
from dermiq.ranges import SEED, check_numbers
from dermiq.schema import DataError, Sample


class NoisyReasoning(Questions):
    """The diagnoses of a source with mistakes in the reasoning to learn; samples without findings are left out.

    The reasoning is that of `dermiq.prompts.describe`, but each finding in it is, with probability `share`, another
    one of the same attribute that is not true of the image. What is wrong is a function of seed and sample. The
    sample's `findings` stay as they are, so rewards and metrics judge by the truth.

    Args:
        source: its samples ask for the diagnosis.
        share: of the findings that are wrong, in [0, 1].
        seed: of the mistakes.

    Raises:
        DataError: if the share is none.
    """

    def __init__(self, source: Source, share: float, seed: int = 0) -> None:
        super().__init__(source)
        if not 0.0 <= share <= 1.0:
            raise DataError(f"the share of wrong findings lies between 0 and 1; got {share}.")
        self.share, self.seed = share, seed
        check_numbers(self, seed=SEED)

    def derive(self, sample: Sample, place: int) -> Sample | None:
        """The sample with some of its findings replaced by wrong ones."""
        if not sample.findings:
            return None
        rng = Random(f"{self.seed}/{sample.id}")
        stated = {attribute: (self._stated(attribute, true, rng),) for attribute, true in sample.findings.items()}
        return replace(sample, reasoning=describe(stated))

    def _stated(self, attribute: str, true: tuple[str, ...], rng: Random) -> str:
        # Both are sampled in any case, so that a larger share adds mistakes and keeps those of a smaller one.
        wrong, other = rng.random() < self.share, rng.choice([one for one in VOCABULARY[attribute] if one not in true])
        return other if wrong else true[0]


class TypicalReasoning(Questions):
    """The diagnoses of a source with reasoning that states the findings most typical of the label, by the ontology.

    It is what a knowledge graph can give to data that have only labels: true of the condition, not always of the image.
    Samples whose label has no condition in the ontology are left out; the `findings` of the others stay as they are.

    Args:
        source: its samples ask for the diagnosis.
    """

    def derive(self, sample: Sample, place: int) -> Sample | None:
        """The sample with the reasoning of its first concept."""
        return replace(sample, reasoning=_typical(sample.concepts[0])) if sample.concepts else None


@lru_cache(maxsize=4096)
def _typical(condition: str) -> str:
    """The most probable value of each attribute, as text."""
    return describe(typical(terminology().graph, condition))


class FormatOnly(Questions):
    """The structure of an answer and nothing else: findings and a diagnosis that have nothing to do with the image.

    **The labels are wrong on purpose.** Each sample states findings sampled uniformly from the vocabulary and names a
    target sampled uniformly from those of the source, independently of the image and of each other, so a model that
    learns them answers in the right form and knows nothing, not even which condition is frequent. Accuracy measured on
    these samples means nothing: use them only for a warm start. Findings and target are a function of seed, sample and
    the source's targets.

    Args:
        source: its samples ask for the diagnosis.
        seed: of findings and targets.
    """

    def __init__(self, source: Source, seed: int = 0) -> None:
        super().__init__(source)
        self.seed = seed
        check_numbers(self, seed=SEED)
        self._named: list[Sample] = []

    def prepare(self) -> None:
        """Find a sample of each target."""
        named = {sample.target: sample for sample in self.source if sample.asks_diagnosis}
        self._named = [named[target] for target in sorted(named)]

    def derive(self, sample: Sample, place: int) -> Sample:
        """The sample's image with a random target and random findings; nothing true is left."""
        rng = Random(f"{self.seed}/{sample.id}")
        named = rng.choice(self._named)
        stated = {attribute: (rng.choice(values),) for attribute, values in VOCABULARY.items()}
        return replace(
            sample,
            target=named.target,
            label=named.label,
            synonyms=named.synonyms,
            concepts=named.concepts,
            differential={},
            findings={},
            findings_observed=False,
            reasoning=describe(stated),
        )
