"""One question about a photograph, from the first word of the answer to the differential, step by step."""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from dermiq.demo.evidence import Evidence, Expert
from dermiq.demo.policy import Asked, Policy
from dermiq.kg import Terminology
from dermiq.metrics import Judge
from dermiq.prompts import QUESTION, normalise, parse
from dermiq.schema import DataError, Message, Sample

MAX_QUESTION = 500  # characters
_UNFINISHED_TAG = re.compile(r"<[/a-z]*$", re.IGNORECASE)
_TAG = re.compile(r"</?(?:think|answer)>", re.IGNORECASE)
_END_OF_REASONING = re.compile(r"</think>", re.IGNORECASE)
_UNKNOWN = Sample(id="", images=(), target="", label="", group="")


@dataclass(frozen=True)
class Turn:
    """A question, empty for the diagnosis, and what was answered so far, which need not be finished."""

    question: str
    text: str = ""

    @property
    def structured(self) -> bool:
        """True if the answer has, or begins to have, the structure of `dermiq.prompts`."""
        return _TAG.search(self.text) is not None

    @property
    def reasoning(self) -> str:
        """What stands before the answer, without tags; all of an answer in plain words."""
        return self._parts[0]

    @property
    def answer(self) -> str:
        """What stands between the answer tags."""
        return self._parts[1]

    @property
    def _parts(self) -> tuple[str, str]:
        thought, *rest = _END_OF_REASONING.split(_UNFINISHED_TAG.sub("", self.text), maxsplit=1)
        return _TAG.sub("", thought).strip(), " ".join(_TAG.sub("", "".join(rest)).split())


@dataclass(frozen=True)
class Differential:
    """How often the policy named which condition when it was asked again and again.

    Attributes:
        counts: (condition, answers that name it), the most frequent first.
        unreadable: answers that name none; None as long as some are being written.
        asked: answers that were asked for.
    """

    counts: tuple[tuple[str, int], ...]
    unreadable: int | None
    asked: int


@dataclass(frozen=True)
class Reading:
    """All that is to be shown about a photograph.

    Attributes:
        turns: what was asked and answered.
        named: the condition that the policy names, as it says it; empty if none.
        evidence: on the last answer; None as long as there is none.
        differential: None as long as there is none.
        doing: what is going on; empty if nothing is.
    """

    turns: tuple[Turn, ...] = ()
    named: str = ""
    evidence: Evidence | None = None
    differential: Differential | None = None
    doing: str = ""

    def stopped(self) -> Reading:
        """The same when nothing goes on any more, without what was begun and tells nothing yet."""
        turns = self.turns if self.turns and self.turns[-1].text else self.turns[:-1]
        counted = self.differential is not None and self.differential.unreadable is not None
        return replace(self, turns=turns, differential=self.differential if counted else None, doing="")


class Reader:
    """Reads photographs: answers, evidence and differential.

    Args:
        policy: which is asked.
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
            before: what there is about this photograph already.

        Yields:
            What there is so far, again and again.

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
        self, photograph: Image.Image, question: str, looked: Asked, now: Reading
    ) -> Generator[Reading, None, Reading]:
        """Answer in plain words; first, the condition in view is named, if that was not done."""
        if not now.named:
            *_, texts = self.policy.answers(looked)
            now = replace(now, named=parse(texts[0]).diagnosis or "")
        asked = self.policy.converse(photograph, question, _history(now.turns[:-1]))
        return (yield from self._written(asked, now))

    def _written(self, asked: Asked, now: Reading) -> Generator[Reading, None, Reading]:
        """The last turn's answer, word by word."""
        for texts in self.policy.answers(asked):
            now = replace(now, turns=(*now.turns[:-1], replace(now.turns[-1], text=texts[0])), doing="Answering …")
            yield now
        return now


def checked(question: object) -> str:
    """A question as it can be asked: empty for the default one.

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
    """What was said in conversation; answers in structure belong to another one."""
    said = [turn for turn in turns if turn.question]
    return [message for turn in said for message in (Message("user", turn.question), Message("assistant", turn.text))]
