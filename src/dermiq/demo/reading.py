"""Reading of a photograph in steps: the answer word by word, its evidence, and the differential."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from dermiq.demo.evidence import Evidence, Expert
from dermiq.demo.policy import Policy, Prompted
from dermiq.kg import Terminology
from dermiq.metrics import Judge
from dermiq.prompts import QUESTION, TAGS, normalise, parse, parse_unfinished
from dermiq.schema import DataError, Message, Sample

MAX_QUESTION = 500  # characters
_UNKNOWN = Sample(id="", images=(), target="", label="", group="")


@dataclass(frozen=True)
class Turn:
    """One turn: a question, empty for the diagnosis, and its answer so far."""

    question: str
    text: str = ""

    @property
    def structured(self) -> bool:
        """True if the answer has, or begins to have, the structure of `dermiq.prompts`."""
        return any(tag in self.text.lower() for tag in TAGS)

    @property
    def reasoning(self) -> str:
        """The reasoning so far; all of an answer in plain words."""
        return parse_unfinished(self.text)[0]

    @property
    def answer(self) -> str:
        """The text of the answer block so far."""
        return parse_unfinished(self.text)[1]


@dataclass(frozen=True)
class Differential:
    """Counts of the conditions that sampled answers name.

    Attributes:
        counts: (condition, answers that name it), the most frequent first.
        unreadable: answers that name none; None while they are being generated.
        sampled: answers in all.
    """

    counts: tuple[tuple[str, int], ...]
    unreadable: int | None
    sampled: int


@dataclass(frozen=True)
class Reading:
    """State of the page about one photograph.

    Attributes:
        turns: questions and answers.
        named: the condition that the policy names, in its own words; empty if none.
        evidence: on the last answer; None until there is one.
        differential: None until there is one.
        doing: the step in progress; empty if none is.
    """

    turns: tuple[Turn, ...] = ()
    named: str = ""
    evidence: Evidence | None = None
    differential: Differential | None = None
    doing: str = ""

    def stopped(self) -> Reading:
        """The reading after a stop: without a turn or a differential that has no content yet."""
        turns = self.turns if self.turns and self.turns[-1].text else self.turns[:-1]
        counted = self.differential is not None and self.differential.unreadable is not None
        return replace(self, turns=turns, differential=self.differential if counted else None, doing="")


class Reader:
    """Reads photographs: answers, evidence and differential.

    Args:
        policy: answers the questions.
        samples: answers that the differential counts.
    """

    def __init__(self, policy: Policy, samples: int) -> None:
        self.policy, self.samples = policy, samples
        self.expert, self._judge = Expert(), Judge(Terminology())

    def read(self, photograph: Image.Image, question: object, before: Reading) -> Generator[Reading, None, None]:
        """Answer a question about a photograph.

        Args:
            photograph: RGB.
            question: empty, or the default question, asks for the diagnosis; any other is conversation. Of whatever
                type it comes from the network.
            before: the reading of this photograph so far.

        Yields:
            The reading so far, again and again.

        Raises:
            DermIQError: if the policy cannot answer; it says why.
        """
        question = checked(question)
        now = replace(before, turns=(*before.turns, Turn(question)), evidence=None, doing="Looking at the photograph …")
        yield now
        looked = self.policy.diagnose(photograph)
        if question:
            now = yield from self._converse(photograph, question, looked, now)
        else:
            now = yield from self._written(looked, now)
            now = replace(now, named=parse(now.turns[-1].text).diagnosis or "")
        now = replace(now, evidence=self.expert.evidence(now.turns[-1].reasoning, now.named, question))
        if now.differential is None:
            yield (now := replace(now, doing=f"Asking {self.samples} times more, for the differential …"))
            for texts in self.policy.answers(looked, self.samples, temperature=1.0):
                yield replace(now, differential=replace(self.count(texts), unreadable=None))
            now = replace(now, differential=self.count(texts))
        yield replace(now, doing="")

    def count(self, texts: Sequence[str]) -> Differential:
        """Count the conditions that answers name, whatever synonym they use."""
        answers = [parse(text) for text in texts]
        votes = self._judge.vote(answers, _UNKNOWN)
        counts = tuple(zip(votes["ranking"], votes["votes"], strict=True))
        return Differential(counts, len(answers) - sum(votes["votes"]), len(answers))

    def _converse(
        self, photograph: Image.Image, question: str, looked: Prompted, now: Reading
    ) -> Generator[Reading, None, Reading]:
        """Answer in plain words; first the policy names a condition, unless it has."""
        if not now.named:
            *_, texts = self.policy.answers(looked)
            now = replace(now, named=parse(texts[0]).diagnosis or "")
        prompted = self.policy.converse(photograph, question, _history(now.turns[:-1]))
        return (yield from self._written(prompted, now))

    def _written(self, prompted: Prompted, now: Reading) -> Generator[Reading, None, Reading]:
        """The last turn's answer, word by word."""
        for texts in self.policy.answers(prompted):
            now = replace(now, turns=(*now.turns[:-1], replace(now.turns[-1], text=texts[0])), doing="Answering …")
            yield now
        return now


def checked(question: object) -> str:
    """A question stripped and checked: empty for the default one.

    Raises:
        DataError: if it is no text, too long, or holds half a character.
    """
    if not isinstance(question, str) or any(map(_is_half, question)):
        raise DataError("The question is no text that can be read. Type it again.")
    if len(question) > MAX_QUESTION:
        raise DataError(f"The question has {len(question):,} characters. Ask in at most {MAX_QUESTION}.")
    return "" if normalise(question) == normalise(QUESTION) else question.strip()


def _is_half(character: str) -> bool:
    """True of one half of a character beyond 16 bits, which is no text by itself."""
    return "\ud800" <= character <= "\udfff"


def _history(turns: Sequence[Turn]) -> list[Message]:
    """Messages of the conversation; answers in structure are no part of it."""
    said = [turn for turn in turns if turn.question]
    return [message for turn in said for message in (Message("user", turn.question), Message("assistant", turn.text))]
