"""What a text says of which condition: the claim, and the clause from which claims are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from dermiq.kg.assertion import Cue
from dermiq.kg.linking import Link

DIAGNOSIS = "diagnosis"
TREATMENT = "treatment"
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
_RELATION_OF_ROLE = {
    Cue.DIAGNOSIS: DIAGNOSIS,
    Cue.MIMIC: "differential",
    Cue.BECOME: "progresses_to",
    Cue.FORM: "subtype_of",
}
# What a note without a verb may state: "Scaly plaques on the elbows."
_DESCRIPTIVE = frozenset(("lesion", "surface", "colour", "distribution", "site", "symptom", "dermoscopy"))
_PREPOSITIONS = frozenset(("of", "in", "with", "for"))
_ARTICLES = frozenset(("a", "an", "the"))
_SPARED = ("site", "age")
_CHOSEN = ("treatment", "test")  # what may be avoided
# What can act: "X does not …" denies that X does.
_ACTING = ("factor", "agent", "treatment", "test", "transmission")
_NEAR = 4  # words between a denial and the care that is denied
_PHRASE = 3  # so many words of a mention are a statement in themselves


class Claim(NamedTuple):
    """What a text says.

    Attributes:
        subject: identifier of a condition.
        relation: a relation of the graph, or `DIAGNOSIS` (the case is this condition), or `TREATMENT` (of any line).
        value: identifier of a concept.
        positive: affirmed, not denied.
        hedged: said with reserve.
        sentence: number of the sentence.
        words: first and last word (exclusive) of the value, as `dermiq.kg.linking.spans` counts them.
    """

    subject: str
    relation: str
    value: str
    positive: bool
    hedged: bool = False
    sentence: int = 0
    words: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Mention:
    """A value that a clause mentions, with the polarity in force there."""

    value: str
    kind: str
    positive: bool
    hedged: bool
    words: tuple[int, int]
    line: str


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


class Clause:
    """The state of reading one clause. What the cues do to it is said in `dermiq.kg.assertion.Cue`.

    The defaults are the class's own, since a clause is made for every few words of every answer.
    """

    denied = False
    denied_from = 0  # how many mentions stand before the denial
    denied_once = False
    avoided = False
    absent = False
    hedged = False
    past = False
    others = False
    denial_end = -1  # the word after the denial
    name_denied = False
    name_end = 0
    attributive = False
    pronoun = False
    verb = False
    likely = False
    dark = False
    pairing = False
    leaving = False
    relative = False  # "which …"
    spreading = False
    cared: tuple[int, int] | None = None  # where it speaks of medical care
    person = False
    role: Cue | None = None
    line = TREATMENT

    def __init__(self, wrong: bool = False) -> None:
        self.wrong = wrong  # the whole sentence is denied
        self.mentions: list[Mention] = []
        self.names: list[str] = []  # of conditions that it is about
        self.joined: list[tuple[str, str, bool, bool, tuple[int, int]]] = []  # relation, name, positive, hedged, words

    def mention(self, link: Link, kind: str) -> None:
        """Take up a value."""
        start, end, value = link
        role = self.role
        if kind == "malignancy" or kind == "category":
            if value != "pre_malignant" and (role == Cue.UNLIKE or role == Cue.MIMIC):
                return
            if role == Cue.BECOME and kind == "malignancy":
                value = "pre_malignant"  # "It turns into cancer."
        elif value == "dark_skin":
            self.dark = True
        positive = self.denied == self.wrong
        if self.denied_once:
            self.denied_once, positive = False, not positive
        if self.avoided and kind in _CHOSEN:
            positive = not positive
        words = (start, end)
        self.mentions.append(Mention(value, kind, positive, self.hedged, words, self.line))

    def _polarity(self) -> bool:
        positive = self.denied == self.wrong
        if self.denied_once:
            self.denied_once, positive = False, not positive
        return positive

    def name(self, link: Link, before: str) -> None:
        """Take up the name of a condition that stands behind the word `before`."""
        name = link[2]
        attributive = before in _PREPOSITIONS
        words = link[:2]
        role = self.role
        if self.past or role == Cue.UNLIKE:
            return
        self.name_end = link[1]
        self.attributive = attributive
        distance = link[0] - self.denial_end
        self.name_denied = self.denied and (distance == 0 or (distance == 1 and before in _ARTICLES))
        if self.denied and self.mentions and self.denied_from == len(self.mentions):
            self.name_denied = True  # "scale is not a mark of psoriasis"
        if self.pairing and not self.names:
            self.pairing, self.role = False, Cue.MIMIC
            self.names.append(name)
        elif role == Cue.MIMIC and before == "of" and not self.names:
            self.names.append(name)  # "the differential of psoriasis"
        elif role == Cue.DIAGNOSIS and self.denied and self.mentions:
            self.names.append(name)  # "itch does not point to psoriasis"
            self.flip(self.denied_from)
            self.denied = False
        elif role in _RELATION_OF_ROLE:
            self.joined.append((_RELATION_OF_ROLE[role], name, self._polarity(), self.hedged, words))
        elif attributive and not self.names:
            self.names.append(name)
        elif self.pronoun and self.verb:
            if not self.mentions and not self.names:
                self.joined.append((DIAGNOSIS, name, self._polarity(), self.hedged, words))
        elif self.names and self.verb:
            if not self.mentions:
                self.joined.append(("subtype_of", name, self._polarity(), self.hedged, words))
        else:
            self.names.append(name)

    def flip(self, up_to: int, *kinds: str) -> bool:
        """Turn the polarity of the first mentions, of some kinds or of all; True if there were any."""
        flipped = [
            mention
            for mention in self.mentions[:up_to]
            if (not kinds or mention.kind in kinds) and mention.value != "dark_skin"
        ]
        for mention in flipped:
            mention.positive = not mention.positive
        if kinds:
            return bool(flipped)
        self.joined = [(relation, name, not positive, hedged, words) for relation, name, positive, hedged, words in self.joined]
        return bool(flipped or self.joined)

    def deny(self, denied: bool = True, end: int = -1) -> None:
        """Deny what follows, or cease to; `end` is the word after the denial."""
        self.denial_end = end
        if denied and not self.denied:
            self.denied_from = len(self.mentions)
        self.denied = denied

    def on_leave(self) -> None:
        self.leaving = self.verb = True

    def on_alone(self) -> None:
        if self.leaving:
            self.on_absent()

    def on_alike(self) -> None:
        for name in self.names[1:]:
            self.joined.append(("differential", name, self.denied == self.wrong, self.hedged, (0, 0)))
        del self.names[1:]

    def on_wrong(self) -> None:
        self.wrong = not self.wrong
        self.denied = self.pronoun = self.verb = False

    def on_absent(self) -> None:
        if self.denied:  # "not absent"
            self.denied = False
            return
        self.absent = self.verb = True
        if self.cared and not self.mentions:
            self._self_care(self.cared)
            return
        if not self.flip(len(self.mentions)):
            self.deny()

    def on_spared(self) -> None:
        if self.denied:
            self.denied = False
        elif not self.flip(len(self.mentions), *_SPARED):
            self.deny()
        self.verb = True

    def on_avoid(self) -> None:
        if self.denied:
            self.denied = False
        else:
            self.avoided = True
            self.flip(len(self.mentions), *_CHOSEN)
        self.verb = True

    def on_worsen(self) -> None:
        if not self.denied:
            self.on_avoid()
        self.verb = True

    def on_seen(self) -> None:
        if self.denied:
            if self.flip(self.denied_from):
                self.denied = False
            elif self.names and not self.mentions:
                self.absent = True

    def on_rather(self) -> None:
        self.denied_once = True

    def on_rarely(self) -> None:
        self.deny()
        self.hedged = True

    def on_hedge(self) -> None:
        self.hedged = self.verb = True

    def on_others(self) -> None:
        self.others = self.role != Cue.UNLIKE

    def on_history(self) -> None:
        self.past = True

    def on_likely(self) -> None:
        self.likely = self.verb = True

    def on_distinguish(self) -> None:
        self.pairing = self.verb = True

    def on_spread(self, words: tuple[int, int]) -> None:
        self.spreading = self.verb = True
        self._contagion(words)

    def on_person(self, words: tuple[int, int]) -> None:
        self.person = True
        self._contagion(words)

    def _contagion(self, words: tuple[int, int]) -> None:
        """ "It passes … to your family." """
        if self.spreading and self.person and all(mention.kind != "contagion" for mention in self.mentions):
            self.mentions.append(
                Mention("contagious", "contagion", self.denied == self.wrong, self.hedged, words, self.line)
            )

    def on_care(self, words: tuple[int, int]) -> None:
        """ "You do not need a doctor" """
        if self.denied and words[0] - self.denial_end <= _NEAR:
            self._self_care(words)
        else:
            self.cared = words

    def _self_care(self, words: tuple[int, int]) -> None:
        if all(mention.kind != "urgency" for mention in self.mentions):
            self.mentions.append(Mention("self_care", "urgency", not self.wrong, self.hedged, words, self.line))

    def on_dark(self) -> None:
        self.dark = True

    def on_verb(self) -> None:
        self.verb = True

    def on_it(self) -> None:
        if not self.names:
            self.pronoun = True

    def on_its(self) -> None:
        self.on_it()
        self.verb = True

    def on_first(self) -> None:
        self._choice("first_line")

    def on_second(self) -> None:
        self._choice("second_line")

    def _choice(self, line: str) -> None:
        self.line = line
        for mention in self.mentions:
            mention.line = line

    def draw(
        self, claims: list[Claim], subjects: list[str], case: str, sentence: int, licensed: Licensed
    ) -> None:
        """Add what it says of its subjects, in an answer about a case.

        Args:
            claims: where to add them.
            subjects: identifiers of the conditions that it is about.
            case: identifier of the condition in question.
            sentence: number of the sentence.
            licensed: what the sentence as a whole may claim.
        """
        if self.denied and 0 < self.denied_from == len(self.mentions):
            self.flip(self.denied_from, *(() if self.name_denied else _ACTING))
        for relation, name, positive, hedged, words in self.joined:
            for subject in (case,) if relation == DIAGNOSIS else subjects:
                claims.append(Claim(subject, relation, name, positive, hedged, sentence, words))
        if self.past:
            return
        for mention in self.mentions:
            if relation := self._relation(mention, licensed):
                said = (relation, mention.value, mention.positive, mention.hedged, sentence, mention.words)
                claims += [Claim(subject, *said) for subject in subjects]

    def _relation(self, mention: Mention, licensed: Licensed) -> str:
        """The relation that a mention claims; empty if it claims nothing."""
        kind = mention.kind
        length = mention.words[1] - mention.words[0]
        if licensed.terse and kind not in _DESCRIPTIVE and length < _PHRASE:
            return ""
        if kind == "urgency" and length == 1 and not licensed.care:
            return ""
        if kind == "treatment":
            return mention.line
        if kind == "transmission" and not licensed.spread:
            return ""
        if self.dark:
            if kind == "colour":
                return "colour_on_dark_skin"
            if mention.value == "dark_skin" and any(other.kind == "colour" for other in self.mentions):
                return ""
        return _RELATION_OF[kind]

    def about_names_alone(self, elided: list[Claim], case: str, sentence: int) -> Iterator[Claim]:
        """What a clause says that only names conditions: "…, but psoriasis is not"; "Psoriasis is unlikely"."""
        positive = (self.denied or self.absent) == self.wrong
        doubted = self.name_denied or (self.absent and not self.attributive)
        if elided and self.verb and not self.relative and not self.absent and not self.attributive and self.role is None:
            for claim in elided:
                for name in self.names:
                    yield claim._replace(subject=name, positive=positive, hedged=self.hedged)
        elif doubted or (positive and (self.likely or self.role == Cue.DIAGNOSIS)):
            for name in self.names:
                yield Claim(case, DIAGNOSIS, name, positive, self.hedged, sentence)
