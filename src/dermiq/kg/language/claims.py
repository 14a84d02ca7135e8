"""What a text says of which condition, drawn from its clauses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from dermiq.kg.language.assertion import Cue
from dermiq.kg.language.clauses import DIAGNOSIS, Clause, Mention, Words

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
_PHRASE = 3  # so many words of a mention of these kinds are a statement in themselves


class Claim(NamedTuple):
    """What a text says.

    Attributes:
        subject: identifier of a condition.
        relation: a relation of the graph, or `DIAGNOSIS` (the case is this condition), or `TREATMENT` (of any line).
        value: identifier of a concept.
        positive: affirmed, not denied.
        hedged: said with reserve.
        words: first and last word (exclusive) of the value, as `dermiq.kg.linking.spans` counts them.
        sentence: number of the sentence.
    """

    subject: str
    relation: str
    value: str
    positive: bool
    hedged: bool = False
    words: Words = (0, 0)
    sentence: int = 0

    def place(self, places: Sequence[tuple[int, int]]) -> tuple[int, int] | None:
        """First character and last (exclusive) of the value's words, by the `spans` of the text; None without words."""
        first, end = self.words
        return (places[first][0], places[end - 1][1]) if end else None


@dataclass(slots=True)
class Licensed:
    """What a sentence as a whole may claim.

    Attributes:
        terse: it is a note without a verb, which may only describe.
        spread: it speaks of contagion, so it may name ways of transmission.
        care: it speaks of medical care, so that a single word may say how soon it is needed.
    """

    terse: bool = False
    spread: bool = False
    care: bool = False


def draw(clause: Clause, subjects: list[str], case: str, licensed: Licensed) -> list[Claim]:
    """What a clause says of its subjects, in an answer about a case; all of them identifiers of conditions."""
    clause.finish()
    claims = [
        Claim(subject, relation, name, positive, hedged, words)
        for relation, name, positive, hedged, words in clause.joined
        for subject in ([case] if relation == DIAGNOSIS else subjects)
    ]
    if not clause.past:
        for mention in clause.mentions:
            if relation := _relation(clause, mention, licensed):
                said = (relation, mention.value, mention.positive, mention.hedged, mention.words)
                claims += [Claim(subject, *said) for subject in subjects]
    return claims


def _relation(clause: Clause, mention: Mention, licensed: Licensed) -> str:
    """The relation that a mention claims; empty if it claims nothing."""
    kind = mention.kind
    length = mention.words[1] - mention.words[0]
    if licensed.terse and kind not in _DESCRIPTIVE and (kind not in _STATING or length < _PHRASE):
        return ""
    if kind == "treatment":
        return mention.line
    if (kind == "urgency" and length == 1 and not licensed.care) or (kind == "transmission" and not licensed.spread):
        return ""
    if clause.dark:
        if kind == "colour":
            return "colour_on_dark_skin"
        if mention.value == "dark_skin" and any(other.kind == "colour" for other in clause.mentions):
            return ""
    return _RELATION_OF[kind]


def draw_from_names(clause: Clause, elided: list[Claim], case: str) -> Iterator[Claim]:
    """What a clause says that only names conditions.

    Args:
        clause: such as "…, but psoriasis is not" or "Psoriasis is unlikely".
        elided: what the clause before said, which this one may say again of its own names.
        case: identifier of the condition in question.
    """
    positive = (clause.denied or clause.absent) == clause.wrong
    doubted = clause.name_denied or (clause.absent and not clause.attributive)
    whole = clause.verb and not clause.relative and not clause.absent and not clause.attributive
    if elided and whole and clause.role is None:
        for claim in elided:
            for name in clause.names:
                yield claim._replace(subject=name, positive=positive, hedged=clause.hedged)
    elif doubted or (positive and (clause.likely or clause.role == Cue.DIAGNOSIS)):
        for name in clause.names:
            yield Claim(case, DIAGNOSIS, name, positive, clause.hedged, clause.name_words)
