"""Other questions about the samples of a source: multiple choice, findings, management."""

from __future__ import annotations

from abc import abstractmethod
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate
from math import isfinite
from random import Random

from PIL import Image

from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.reading.card import terminology
from dermiq.kg import KnowledgeGraph
from dermiq.prompts import FINDING_QUESTION, LETTERS, MANAGEMENT_QUESTION, choice_question, ways_to_choose
from dermiq.ranges import SEED, check_numbers
from dermiq.schema import DataError, Sample


class Questions(Source):
    """The diagnosis samples of another source with another question each.

    The question is a function of the sample, and of a seed where something is random. Samples to which it does not
    apply are left out. Groups and links stay, so that all questions about an image fall into one split.

    Args:
        source: its samples ask for the diagnosis.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._indices: list[int] = []

    @abstractmethod
    def derive(self, sample: Sample, place: int) -> Sample | None:
        """The sample with the new question, or None where it does not apply.

        Args:
            sample: of the source.
            place: its index there.
        """

    def load(self) -> None:
        """Read the source's metadata, and find the samples to ask about.

        Raises:
            DataError: if there are none.
        """
        if self._indices:
            return
        self.source.load()
        self.prepare()
        samples = enumerate(self.source)
        self._indices = [i for i, sample in samples if sample.asks_diagnosis and self.derive(sample, i) is not None]
        if not self._indices:
            raise DataError(f"{type(self).__name__}: the source has no sample that could be asked this.")

    def prepare(self) -> None:
        """Collect what the questions need of the whole source, once it is loaded."""

    def __len__(self) -> int:
        """Number of questions."""
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        """One question, 0 <= index < len."""
        place = self._indices[index]
        question = self.derive(self.source[place], place)
        assert question is not None
        return replace(question, id=f"{question.id}/{question.kind}")

    def missing(self) -> list[int]:
        """Indices of the questions whose images are known to be absent."""
        absent = set(self.source.missing())
        return [i for i, place in enumerate(self._indices) if place in absent]

    def image(self, reference: str) -> Image.Image:
        """Open an image by the source.

        Raises:
            DataError: see `open_image`.
        """
        return self.source.image(reference)


class ChoiceQuestions(Questions):
    """The diagnosis by multiple choice among the targets of the source.

    The wrong options are sampled for each question, from targets that neither lie above or below the right one in the
    ontology nor share a condition with it. The right one stands equally often at each place, also within its target,
    unless `places` says otherwise.

    Args:
        source: its samples ask for the diagnosis.
        options: of each question.
        seed: of options and places.
        places: letter -> how often the right option stands there, beside 1 for a letter that is not named: ``{A: 3}``
            puts it at A in half of the questions with four options, of every target. For training sets with a position
            bias, to see whether a policy learns the place in place of the image. None deals the places equally.

    Raises:
        DataError: if the number of options is out of range, or `places` names no letter of theirs or is no weights.
    """

    def __init__(self, source: Source, options: int = 4, seed: int = 0, places: dict[str, float] | None = None) -> None:
        super().__init__(source)
        if not 2 <= options <= len(LETTERS):
            raise DataError(f"a choice is between 2 to {len(LETTERS)} options, not {options}.")
        self.options, self.seed = options, seed
        check_numbers(self, seed=SEED)
        self.weights = None if places is None else _weights(places, LETTERS[:options])
        self._wrong: dict[str, list[str]] = {}
        self._places: list[int] = []

    def prepare(self) -> None:
        """Find the wrong options of each target, and deal out the places."""
        meanings = {sample.target: sample.concepts for sample in self.source}
        graph = terminology().graph
        self._wrong = {
            target: [name for name, other in meanings.items() if name != target and _apart(graph, concepts, other)]
            for target, concepts in meanings.items()
        }
        for target, wrong in self._wrong.items():
            if len(wrong) < self.options - 1:
                raise DataError(
                    f"{len(wrong)} targets of the source differ from {target!r}: too few for {self.options} options. "
                    "Lower `options`."
                )
        targets = [sample.target for sample in self.source]
        deal = self._equally if self.weights is None else partial(self._by_weight, self.weights)
        dealt = {target: iter(deal(target, count)) for target, count in Counter(targets).items()}
        self._places = [next(dealt[target]) for target in targets]

    def derive(self, sample: Sample, place: int) -> Sample:
        """The sample's target among wrong options."""
        options = Random(f"{self.seed}/{sample.id}").sample(self._wrong[sample.target], self.options - 1)
        right = self._places[place]
        options.insert(right, sample.target)
        ways = ways_to_choose(options, right)
        return replace(
            sample,
            kind="choice",
            question=choice_question(options),
            options=tuple(options),
            target=ways[0],
            synonyms=ways[1:],
        )

    def _equally(self, target: str, count: int) -> Iterator[int]:
        """Places of the right option in the questions of a target: every one before any comes again."""
        for start in range(0, count, self.options):
            block = start // self.options
            yield from Random(f"{self.seed}/{target}/{block}").sample(range(self.options), self.options)

    def _by_weight(self, weights: Sequence[float], target: str, count: int) -> list[int]:
        """Places of the right option in the questions of a target: each its share of `count`, rounded up or down."""
        ends = list(accumulate(weights))
        last = max(place for place, weight in enumerate(weights) if weight)
        generator = Random(f"{self.seed}/{target}")
        start = generator.random()
        places = [bisect_right(ends, (i + start) * ends[-1] / count, hi=last) for i in range(count)]
        generator.shuffle(places)
        return places


class FindingQuestions(Questions):
    """What is seen: one attribute of each sample whose own findings are known (rendered or annotated).

    Args:
        source: its samples ask for the diagnosis.
        seed: of the choice of the attribute.
    """

    def __init__(self, source: Source, seed: int = 0) -> None:
        super().__init__(source)
        self.seed = seed
        check_numbers(self, seed=SEED)

    def derive(self, sample: Sample, place: int) -> Sample | None:
        """The question for an attribute with a single value."""
        sure = [attribute for attribute, values in sample.findings.items() if len(values) == 1]
        if not sample.findings_observed or not sure:
            return None
        attribute = Random(f"{self.seed}/{sample.id}").choice(sure)
        (value,) = sample.findings[attribute]
        question = FINDING_QUESTION.format(attribute=attribute)
        return replace(sample, kind="finding", question=question, target=value, synonyms=())


class ManagementQuestions(Questions):
    """What is to be done: how urgent the sample's condition is, by the ontology, where all it can mean agree.

    Args:
        source: its samples ask for the diagnosis.
    """

    def derive(self, sample: Sample, place: int) -> Sample | None:
        """The question for the urgency."""
        graph = terminology().graph
        found = {fact.value for name in sample.concepts for fact in graph.about(name, "urgency") if fact.positive}
        if len(found) != 1:
            return None
        courses = [concept.label for concept in graph.concepts.values() if concept.kind == "urgency"]
        question = MANAGEMENT_QUESTION.format(options=", ".join(courses[:-1]) + f" or {courses[-1]}")
        return replace(sample, kind="management", question=question, target=graph.label(found.pop()), synonyms=())


def _weights(places: Mapping[str, float], letters: Sequence[str]) -> list[float]:
    """How often the right option stands at each of some letters."""
    unknown = sorted(set(places) - set(letters))
    weights = [places.get(letter, 1.0) for letter in letters]
    if unknown or not all(map(isfinite, weights)) or min(weights) < 0 or max(weights) == 0:
        raise DataError(
            f"`places` is {dict(places)}: it gives letters from {letters[0]} to {letters[-1]} a number from 0 on, one "
            "of them more than 0."
        )
    return weights


def _apart(graph: KnowledgeGraph, some: tuple[str, ...], others: tuple[str, ...]) -> bool:
    return not any(graph.related(one, other) for one in some for other in others)
