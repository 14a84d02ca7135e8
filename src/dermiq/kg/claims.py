"""What a text says of which condition: the claim, and the clause from which claims are drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from dermiq.kg.assertion import Cue

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
_CHOSEN = ("treatment", "test")  # what may be avoided
# What can act: "X does not …" denies that X does.
_ACTING = ("factor", "agent", "treatment", "test", "transmission")
_PHRASE = 3  # so many words of a mention are a statement in themselves


@dataclass(frozen=True, slots=True)
class Claim:
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
class Clause:
    """The state of reading one clause. What the cues do to it is said in `dermiq.kg.assertion.Cue`."""

    wrong: bool = False  # the whole sentence is denied
    mentions: list[Mention] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of conditions that it is about
    joined: list[tuple[str, str, bool, bool, tuple[int, int]]] = field(default_factory=list)
    denied: bool = False
    denied_from: int = 0
    denied_once: bool = False
    avoided: bool = False
    absent: bool = False
    hedged: bool = False
    past: bool = False
    pronoun: bool = False
    verb: bool = False
    likely: bool = False
    dark: bool = False
    pairing: bool = False
    role: Cue | None = None
    line: str = TREATMENT

    def mention(self, value: str, kind: str, words: tuple[int, int]) -> None:
        """Take up a value."""
        role = self.role
        if kind == "malignancy" or kind == "category":
            if role == Cue.UNLIKE or role == Cue.MIMIC:
                return
            if role == Cue.BECOME and kind == "malignancy":
                value = "pre_malignant"  # "It turns into cancer."
        elif value == "dark_skin":
            self.dark = True
        positive = self._polarity()
        if self.avoided and kind in _CHOSEN:
            positive = not positive
        self.mentions.append(Mention(value, kind, positive, self.hedged, words, self.line))
        if value == "benign_tumour" and positive:
            self.mentions.append(Mention("benign", "malignancy", positive, self.hedged, words, self.line))

    def _polarity(self) -> bool:
        positive = self.denied == self.wrong
        if self.denied_once:
            self.denied_once, positive = False, not positive
        return positive

    def name(self, name: str, words: tuple[int, int], attributive: bool) -> None:
        """Take up the name of a condition, attributive if a preposition stands before it."""
        role = self.role
        if self.past or role == Cue.UNLIKE:
            return
        if self.pairing and not self.names:
            self.pairing, self.role = False, Cue.MIMIC
            self.names.append(name)
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
        flipped = [mention for mention in self.mentions[:up_to] if not kinds or mention.kind in kinds]
        for mention in flipped:
            mention.positive = not mention.positive
        if kinds:
            return bool(flipped)
        self.joined = [(relation, name, not positive, *rest) for relation, name, positive, *rest in self.joined]
        return bool(flipped or self.joined)

    def deny(self, denied: bool = True) -> None:
        """Deny what follows, or cease to."""
        if denied and not self.denied:
            self.denied_from = len(self.mentions)
        self.denied = denied

    def on_lack(self) -> None:
        self.deny(not self.denied)
        self.verb = True

    def on_without(self) -> None:
        self.deny(not self.denied)

    def on_wrong(self) -> None:
        self.wrong = not self.wrong
        self.denied = self.pronoun = self.verb = False

    def on_absent(self) -> None:
        if self.denied:  # "not absent"
            self.denied = False
            return
        self.absent = self.verb = True
        if not self.flip(len(self.mentions)):
            self.deny()

    def on_spared(self) -> None:
        if self.denied:
            self.denied = False
        elif not self.flip(len(self.mentions), "site"):
            self.deny()
        self.verb = True

    def on_avoid(self) -> None:
        if self.denied:
            self.denied = False
        else:
            self.avoided = True
            self.flip(len(self.mentions), *_CHOSEN)
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

    def on_history(self) -> None:
        self.past = True

    def on_likely(self) -> None:
        self.likely = self.verb = True

    def on_distinguish(self) -> None:
        self.pairing = self.verb = True

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

    def claims(self, subjects: list[str], case: str, sentence: int, terse: bool, spread: bool) -> Iterator[Claim]:
        """What it says of its subjects, in an answer about a case.

        Args:
            subjects: identifiers of the conditions that it is about.
            case: identifier of the condition in question.
            sentence: number of the sentence.
            terse: it is a note without a verb, which may only describe.
            spread: the sentence speaks of contagion.
        """
        if self.denied and self.verb and self.denied_from == len(self.mentions):
            self.flip(self.denied_from, *_ACTING)
        for relation, name, positive, hedged, words in self.joined:
            for subject in (case,) if relation == DIAGNOSIS else subjects:
                yield Claim(subject, relation, name, positive, hedged, sentence, words)
        if self.past:
            return
        for mention in self.mentions:
            if relation := self._relation(mention, terse, spread):
                for subject in subjects:
                    yield Claim(
                        subject, relation, mention.value, mention.positive, mention.hedged, sentence, mention.words
                    )

    def _relation(self, mention: Mention, terse: bool, spread: bool) -> str:
        """The relation that a mention claims; empty if it claims nothing."""
        kind = mention.kind
        if terse and kind not in _DESCRIPTIVE and mention.words[1] - mention.words[0] < _PHRASE:
            return ""
        if kind == "treatment":
            return mention.line
        if kind == "transmission" and not spread:
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
        if elided and self.verb and not self.absent and self.role is None:
            for claim in elided:
                for name in self.names:
                    yield replace(claim, subject=name, positive=positive, hedged=self.hedged)
        elif not positive or self.likely or self.role == Cue.DIAGNOSIS:
            for name in self.names:
                yield Claim(case, DIAGNOSIS, name, positive, self.hedged, sentence)
