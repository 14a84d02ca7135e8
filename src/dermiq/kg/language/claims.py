"""Claims, what a sentence was read as, and the extraction of claims from a clause."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dermiq.kg.language.assertion import Cue
from dermiq.kg.language.clauses import DIAGNOSIS, Clause, Frequency, Mention, Words
from dermiq.kg.linking import Link
from dermiq.kg.quantities import Range

_RELATION_OF = {
    "category": "category",
    "malignancy": "malignancy",
    "lesion": "morphology",
    "surface": "secondary_morphology",
    "colour": "colour",
    "distribution": "distribution",
    "site": "site",
    "symptom": "symptom",
    "dermoscopy": "dermoscopy",
    "agent": "agent",
    "factor": "cause",
    "test": "test",
    "urgency": "urgency",
    "red_flag": "red_flag",
    "contagion": "contagious",
    "transmission": "transmission",
    "age": "age_group",
    "course": "course",
}
# What a note without a verb may state: "Scaly plaques on the elbows."
_DESCRIPTIVE = frozenset(("lesion", "surface", "colour", "distribution", "site", "symptom", "dermoscopy"))
_STATING = frozenset(("urgency", "contagion"))
_NOTED = frozenset(("malignancy", "contagion", "urgency", "category", "agent", "treatment", "course"))
# A claim of urgency beside such a value is about cases that have it.
_QUALIFYING = frozenset(("red_flag", "site", "age"))
STATES = frozenset(("pregnancy", "breastfeeding"))  # factors in which treatments are safe or not
_WAITING = frozenset(("self_care", "routine"))
_PHRASE = 3  # so many words of a mention of these kinds are a statement in themselves


class Claim(NamedTuple):
    """One statement about a condition.

    Attributes:
        subject: identifier of a condition.
        relation: a relation of the graph, or `DIAGNOSIS` (the case is this condition), or `TREATMENT` (of any line).
        value: identifier of a concept.
        positive: affirmed, not denied.
        hedged: stated with reserve.
        words: first and last word (exclusive) of the value, counted as by `dermiq.kg.linking.spans`.
        sentence: number of the sentence.
        frequency: how often it is said to be so, if it is said.
        range: of a quantity.
        telegraphic: a single word of a note states it ("Benign."), which may cost but earns nothing.
        conditional: said of cases with some further sign, not of all: "… is urgent near the eye".
        named: its subject is named, not taken from what was said before.
    """

    subject: str
    relation: str
    value: str
    positive: bool
    hedged: bool = False
    words: Words = (0, 0)
    sentence: int = 0
    frequency: Frequency = ""
    range: Range | None = None
    telegraphic: bool = False
    conditional: bool = False
    named: bool = False

    @property
    def statement(self) -> tuple[object, ...]:
        """What it says, wherever and with whatever reserve it says it."""
        return (*self[:4], self.frequency, self.range, self.conditional)

    def place(self, places: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """First and last character (exclusive) of the value in the text with these `spans`; None without words."""
        first, end = self.words
        return (places[first][0], places[end - 1][1]) if end else None


@dataclass(slots=True)
class Licensed:
    """Kinds of claims that a sentence as a whole allows.

    Attributes:
        terse: it is a note without a verb: only descriptive values are claims that earn.
        single: it is one term, which describes nothing.
        spread: it is about contagion: ways of transmission are claims.
        care: it is about medical care: a single word such as "soon" is a claim of urgency.
    """

    terse: bool = False
    single: bool = False
    spread: bool = False
    care: bool = False


@dataclass(slots=True)
class Reading:
    """Claims and topic of a sentence.

    Attributes:
        claims: what it asserts; words are counted from its first.
        asked: the claims that it asks about, if it is a question.
        about: its topic, to which an "it" of the next sentence refers.
        question: it is a question.
        spread: it is about contagion.
        dark: it is about dark skin.
        unread: it is of a language that is not read.
        bare: it only names a condition.
        listing: it speaks of differential diagnoses, so that names below it are no diagnosis.
    """

    claims: list[Claim] = field(default_factory=list)
    asked: list[Claim] = field(default_factory=list)
    about: str = ""
    question: bool = False
    spread: bool = False
    dark: bool = False
    unread: bool = False
    bare: Link | None = None
    listing: bool = False


def extract(clause: Clause, topic: str, case: str, licensed: Licensed) -> list[Claim]:
    """The claims of a clause about the conditions that it names, else about its topic, in an answer about a case."""
    clause.finish()
    subjects = clause.names or [topic]
    claims = [
        Claim(subject, relation, name, positive, hedged, words, named=bool(clause.names))
        for relation, name, positive, hedged, words in clause.joined
        if positive or relation != DIAGNOSIS or not clause.mentions  # "textbooks never list X under …"
        for subject in ([case] if relation == DIAGNOSIS else subjects)
    ]
    if not clause.past:
        _delayed(clause)
        state = next((mention for mention in clause.mentions if mention.value in STATES), None)
        if all(mention.kind != "treatment" for mention in clause.mentions):
            state = None
        for mention in clause.mentions:
            if mention is state:
                continue
            if state and mention.kind == "treatment":
                claims.append(_in_state(mention, state))
            elif relation := _relation(clause, mention, licensed):
                claim = Claim(
                    subjects[0],
                    relation,
                    mention.value,
                    mention.positive,
                    mention.hedged,
                    mention.words,
                    frequency=mention.frequency,
                    telegraphic=licensed.terse and (licensed.single or not _describes(mention)),
                    conditional=relation == "urgency" and any(map(_qualifies, clause.mentions)),
                    named=bool(clause.names),
                )
                claims += [claim._replace(subject=subject) for subject in subjects]
    return claims


def _delayed(clause: Clause) -> None:
    """Deny the red flags of a clause that says they can wait: "Crepitus can wait for a routine appointment"."""
    if any(one.value in _WAITING and one.positive and one.kind == "urgency" for one in clause.mentions):
        for one in clause.mentions:
            if one.kind == "red_flag":
                one.positive = False


def _in_state(treatment: Mention, state: Mention) -> Claim:
    """The claim that a treatment must not, or may, be used in a state such as pregnancy."""
    banned = not (treatment.positive and state.positive)
    return Claim(treatment.value, "contraindicated_in", state.value, banned, treatment.hedged, treatment.words)


def _qualifies(mention: Mention) -> bool:
    return mention.positive and (mention.kind in _QUALIFYING or mention.value in STATES)


def _describes(mention: Mention) -> bool:
    """True for what a note without a verb states as well as prose does."""
    return mention.kind in _DESCRIPTIVE or (mention.kind in _STATING and mention.words[1] - mention.words[0] >= _PHRASE)


def _relation(clause: Clause, mention: Mention, licensed: Licensed) -> str:
    """The relation of the claim that a mention makes; empty if it makes none."""
    kind = mention.kind
    length = mention.words[1] - mention.words[0]
    if licensed.terse and kind not in _NOTED and (licensed.single or not _describes(mention)):
        return ""
    if kind == "treatment":
        return mention.line
    if (kind == "urgency" and length == 1 and not licensed.care and not licensed.terse) or (
        kind == "transmission" and not licensed.spread
    ):
        return ""
    if clause.dark:
        if kind == "colour":
            return "colour_on_dark_skin"
        if mention.value == "dark_skin" and any(other.kind == "colour" for other in clause.mentions):
            return ""
    if kind == "factor" and clause.relieving:
        return "relieved_by"
    return _RELATION_OF.get(kind, "")


def extract_from_names(clause: Clause, elided: list[Claim], sparing: bool, case: str) -> Iterator[Claim]:
    """The claims of a clause that only names conditions.

    Args:
        clause: such as "…, but psoriasis is not" or "Psoriasis is unlikely".
        elided: the claims of the clause before, which this one may repeat for its own names.
        sparing: its verb denied: "Many rashes leave the shin alone, but psoriasis does not."
        case: identifier of the condition in question.
    """
    positive = (clause.denied or clause.absent) == clause.wrong
    doubted = clause.name_denied or (clause.absent and not clause.attributive)
    whole = clause.verb and not clause.relative and not clause.absent and not clause.attributive
    if elided and whole and clause.role is None:
        for claim in elided:
            for name in clause.names:
                yield claim._replace(subject=name, positive=positive != sparing, hedged=clause.hedged, named=True)
    elif doubted or (positive and (clause.likely or clause.role == Cue.DIAGNOSIS)):
        for name in clause.names:
            yield Claim(case, DIAGNOSIS, name, positive, clause.hedged, clause.name_words)
