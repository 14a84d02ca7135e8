"""Conversations about synthetic lesions, answered from their findings and from the knowledge graph."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from random import Random

from PIL import Image

from dermiq.datamodules.phantom.source import PhantomSource
from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.reading.card import terminology
from dermiq.kg import Fact, KnowledgeGraph, Retriever
from dermiq.kg.instruction import FINDING, answer, answerable, describe_findings, kinds, question
from dermiq.prompts import CONVERSATION_PROMPT, grounded_question
from dermiq.schema import DataError, Message, Sample


class PhantomConversations(Source):
    """Questions about synthetic lesions with true answers in varied wording; sample i is a function of (seed, i).

    Args:
        count: number of conversations, each about its own lesion.
        seed: of the whole set; the lesions are those of `PhantomSource` under the same seed.
        size: width and height of the images, in pixels.
        conditions: names to sample from, of `CONDITIONS`; None means all.
        kinds: of questions; None means all that `dermiq.kg.instruction` knows.
        turns: the most questions of one conversation; each has from 1 to that many.
        grounded: share of the conversations whose last question comes with facts that answer it, in [0, 1].

    Raises:
        DataError: if a number makes no sense, or a kind or a condition is unknown.
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        size: int = 96,
        conditions: list[str] | None = None,
        kinds: list[str] | None = None,
        turns: int = 1,
        grounded: float = 0.0,
    ) -> None:
        self.lesions = PhantomSource(count, seed, size, conditions)
        self.kinds = _known(kinds)
        if turns < 1 or not 0 <= grounded <= 1:
            raise DataError(f"conversations need turns >= 1 and 0 <= grounded <= 1; got {turns} and {grounded}.")
        self.turns, self.grounded = turns, grounded

    @property
    def graph(self) -> KnowledgeGraph:
        """The knowledge graph, loaded once per process."""
        return terminology().graph

    @cached_property
    def _retriever(self) -> Retriever:
        return Retriever(budget=60, notes=False)

    def load(self) -> None:
        """Nothing to read."""

    def __len__(self) -> int:
        """Number of conversations."""
        return len(self.lesions)

    def __getitem__(self, index: int) -> Sample:
        """One conversation."""
        lesion = self.lesions[index]
        rng = Random(f"conversation/{lesion.id}")
        possible = [kind for kind in self.kinds if answerable(self.graph, lesion.target, kind)]
        *before, last = rng.sample(possible, min(rng.randint(1, self.turns), len(possible)))
        history = [Message("system", CONVERSATION_PROMPT)]
        for kind in before:
            history += [Message("user", question(kind, rng)), Message("assistant", self._reply(lesion, kind, rng))]
        text = question(last, rng)
        grounded = last != FINDING and rng.random() < self.grounded
        passages = self._retriever.retrieve(text, [lesion.target]) if grounded else []
        facts = [passage.fact for passage in passages]
        return Sample(
            id=f"{lesion.id}-{last}",
            images=lesion.images,
            target=lesion.target,
            label=lesion.label,
            group=lesion.group,
            question=grounded_question(text, [passage.sentence for passage in passages]),
            history=tuple(history),
            reply=self._reply(lesion, last, rng, facts),
            synonyms=lesion.synonyms,
            findings=lesion.findings if last == FINDING else {},
            findings_observed=True,
            skin_type=lesion.skin_type,
            concepts=lesion.concepts,
            site=lesion.site,
            dataset=lesion.dataset,
            licence=lesion.licence,
            attribution=lesion.attribution,
        )

    def image(self, reference: str) -> Image.Image:
        """The image of one of this source's references, rendered as RGB.

        Raises:
            DataError: if the reference is not one of this source.
        """
        return self.lesions.image(reference)

    def _reply(self, lesion: Sample, kind: str, rng: Random, facts: Sequence[Fact] = ()) -> str:
        if kind == FINDING:
            return describe_findings(lesion.findings, rng)
        return answer(self.graph, lesion.target, kind, rng, facts)


def _known(chosen: list[str] | None) -> tuple[str, ...]:
    unknown = sorted(set(chosen or ()) - set(kinds()))
    if unknown or chosen == []:
        raise DataError(f"there are no questions of the kinds {unknown or 'given'}: use some of {', '.join(kinds())}.")
    return tuple(chosen or kinds())
