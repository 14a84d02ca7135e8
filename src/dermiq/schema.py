"""The records that every part of the project exchanges: standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NotRequired, TypedDict

Kind = Literal["diagnosis", "choice", "finding", "management", "vqa"]


class DermIQError(Exception):
    """A failure the user can mend: the message says what is wrong, where, and what to do.

    The command line prints it without a traceback and exits with code 2.
    """


class DataError(DermIQError):
    """A source, a row or an image is not what the configuration promises."""


class ModelError(DermIQError):
    """A model directory, an adapter or a prompt does not fit the backbone."""


class TrainingError(DermIQError):
    """A reward, a loss or a checkpoint cannot be used."""


class KnowledgeError(DermIQError):
    """An ontology cannot be read, or the knowledge graph has no such condition."""


@dataclass(frozen=True)
class SkinType:
    """Skin type of a sample: the value, its scale (e.g. ``fitzpatrick``) and how it was obtained."""

    scale: str
    value: str
    how: str


@dataclass(frozen=True)
class Message:
    """One turn of a conversation.

    Attributes:
        role: ``system``, ``user`` or ``assistant``.
        text: what is said; ``<image>`` marks the place of an image.
    """

    role: str
    text: str


@dataclass(frozen=True)
class Sample:
    """One question about one or more images, with what is known of the answer.

    Without a `reply` it is to be answered in the structure of `dermiq.prompts`. With one it is conversation: plain
    words, and no system prompt but the one in its `history`.

    Attributes:
        id: stable and unique within its source.
        images: references that the sample's source can open; never shown to the model.
        target: what to answer: the concept to name, in lower case (``melanoma``), a letter, a finding, a few words;
            empty if a conversation is about no condition.
        label: the raw label of the data set (``mel``).
        group: what must not be split: patient, else lesion, else duplicate cluster.
        question: the user's question; empty means the default one of `dermiq.prompts`.
        history: what was said before the question. Its images stand where ``<image>`` marks them in the texts of
            history and question; without any mark all are shown before the first user's turn.
        reply: reference reply to a conversational question.
        kind: what the question asks for; see `dermiq.prompts.SYSTEM_PROMPTS`.
        options: of a multiple-choice question, in the order shown.
        synonyms: other names that count as `target`.
        concepts: identifiers in the ontology that the label can mean, the first being the target's.
        differential: diagnosis -> weight, adding up to 1, where several raters disagreed.
        findings: attribute -> values that are true of the image, or typical of the condition.
        findings_observed: True where `findings` are of this very image, rendered or annotated.
        reasoning: reference text for ``<think>``; None lets the prompt module write it from `findings`.
        skin_type: None where unknown.
        site: of the body, as the data set words it; empty where unknown.
        licence: of the image.
        attribution: of the image.
        dataset: name of the data set (``ham10000``); empty where it has none.
        links: what else ties samples together, across data sets too: those that share one are never split
            (``isic:ISIC_0024306``, ``md5:...``).
    """

    id: str
    images: tuple[str, ...]
    target: str
    label: str
    group: str
    question: str = ""
    history: tuple[Message, ...] = ()
    reply: str | None = None
    kind: Kind = "diagnosis"
    options: tuple[str, ...] = ()
    synonyms: tuple[str, ...] = ()
    concepts: tuple[str, ...] = ()
    differential: Mapping[str, float] = field(default_factory=dict)
    findings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    findings_observed: bool = False
    reasoning: str | None = None
    skin_type: SkinType | None = None
    site: str = ""
    licence: str = ""
    attribution: str = ""
    dataset: str = ""
    links: tuple[str, ...] = ()

    @property
    def structured(self) -> bool:
        """True if the answer has the structure of `dermiq.prompts`, False for conversation."""
        return self.reply is None

    @property
    def asks_diagnosis(self) -> bool:
        """True if the answer to give, in structure, is the name of a condition."""
        return self.structured and self.kind == "diagnosis"


@dataclass(frozen=True)
class PreferencePair(Sample):
    """A question with a better and a worse reply.

    Attributes:
        chosen: the better completion.
        rejected: the worse one.
        margin: by how much the judge preferred it; None where nobody said.
    """

    chosen: str = ""
    rejected: str = ""
    margin: float | None = None

    @property
    def structured(self) -> bool:
        """False: the conversation is taken as it stands, system prompt included."""
        return False


@dataclass(frozen=True)
class Answer:
    """A parsed completion.

    Attributes:
        text: the completion without special tokens, behind what the chat template opened of it.
        think: what stands between the think tags; empty if the structure is broken.
        diagnosis: what stands between the answer tags; None if the structure is broken.
    """

    text: str
    think: str
    diagnosis: str | None

    @property
    def well_formed(self) -> bool:
        """True if the completion has the structure asked for."""
        return self.diagnosis is not None


class Candidate(TypedDict):
    """A sampled answer that a preference pair may be formed of.

    Attributes:
        completion: its text.
        grounded: True if it was sampled beside facts.
        facts: their sentences.
        length: in tokens.
        finished: False where the length limit cut it off.
        confidence: the policy's length-normalised probability, in (0, 1].
    """

    completion: str
    grounded: bool
    facts: list[str]
    length: int
    finished: NotRequired[bool]
    confidence: NotRequired[float]


class CandidateRecord(TypedDict):
    """A question with its candidates; a line of ``candidates.jsonl``.

    Attributes:
        id: of the sample, like `group` and `target`.
        group: see `Sample`.
        target: see `Sample`.
        asks_diagnosis: True if the answer has the structure of `dermiq.prompts`.
        question: as it was asked.
        messages: the conversation up to the reply.
        images: paths, relative to the file once written.
        candidates: in the order in which they were sampled.
        policy: of the file's header, once read from it: which policy answered.
        sampling: likewise: how.
    """

    id: str
    group: str
    target: str
    asks_diagnosis: bool
    question: str
    messages: list[dict[str, Any]]
    images: list[str]
    candidates: list[Candidate]
    policy: NotRequired[dict[str, Any]]
    sampling: NotRequired[dict[str, Any]]


class AcceptedAnswers(TypedDict):
    """The right answers that were sampled to a question; a line of ``accepted.jsonl``.

    Attributes:
        id: of the sample.
        target: of the sample.
        sampled: number of answers sampled.
        right: number of right ones.
        accepted: completions kept, each with a reasoning of its own.
    """

    id: str
    target: str
    sampled: int
    right: int
    accepted: list[str]
