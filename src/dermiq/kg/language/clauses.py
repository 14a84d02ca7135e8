"""The state of reading one clause: its mentions, their polarity, and the roles of names."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from dermiq.kg.language.assertion import Cue
from dermiq.kg.linking import Link

DIAGNOSIS = "diagnosis"
TREATMENT = "treatment"
_RELATION_OF_ROLE = {
    Cue.DIAGNOSIS: DIAGNOSIS,
    Cue.MIMIC: "differential",
    Cue.BECOME: "progresses_to",
    Cue.FORM: "subtype_of",
}
_PREPOSITIONS = frozenset(("of", "in", "with", "for"))
_ARTICLES = frozenset(("a", "an", "the"))
_JOINING = _ARTICLES | {"and", "or", "nor", ",", "plus"}  # before a further name: the clause is about both
_SPARED = ("site", "age")  # what may be spared
_CHOSEN = ("treatment", "test")  # what may be avoided
# What can act: "X does not …" denies that X does.
_ACTING = ("factor", "agent", "treatment", "test", "transmission")
_NEAR = 8  # words between a denial and the care that is denied

Frequency = Literal["", "rarely", "often", "always"]
Words = tuple[int, int]
"""First and last word (exclusive)."""


@dataclass(slots=True)
class Mention:
    """The mention of a value, with its polarity."""

    value: str
    kind: str
    positive: bool
    hedged: bool
    words: Words
    line: str
    frequency: Frequency = ""


@dataclass(slots=True)
class Clause:
    """The state of reading one clause. `dermiq.kg.language.assertion.Cue` says what each cue does to it."""

    wrong: bool = False  # the whole sentence is denied
    denied: bool = False  # what follows is denied
    denied_from: int = 0  # how many mentions stand before the denial
    denied_once: bool = False  # the next mention is denied
    privative: bool = False  # "non-": so it is, unless it is a name
    diagnosed: bool = False  # a diagnosis was named
    denial_end: int = -1  # the word after the denial
    without: bool = False  # the denial is a preposition
    name_denied: bool = False  # a condition's name is denied, not a value
    absent: bool = False  # what precedes is denied
    avoided: bool = False  # treatments and tests are denied
    excluding: bool = False  # values are denied, and names are differentials
    leaving: bool = False  # "leaves … alone": the mentions before "alone" are denied
    sparing: bool = False  # its verb denies: "leaves alone", "spares", "lacks"
    hedged: bool = False
    past: bool = False  # about another time or person
    others: bool = False  # about other conditions
    relative: bool = False  # "which …"
    resumed: bool = False  # it goes on behind a parenthesis
    verb: bool = False  # it has one
    pronoun: bool = False  # its subject is "it" or the lesion
    lesion: bool = False  # its subject is the lesion, whatever was named before
    frequency: Frequency = ""  # how often it is so
    likely: bool = False  # the name before is the diagnosis
    pairing: bool = False  # of two names that follow, the second is a differential of the first
    attributive: bool = False  # the name follows a preposition
    name_words: Words = (0, 0)  # of the last name
    dark: bool = False  # about dark skin
    spreading: bool = False  # about contagion
    person: bool = False  # about other people, with `spreading`
    relieving: bool = False  # factors are said to do good
    needed: bool = False  # it says that something is needed
    cared: Words | None = None  # where it mentions medical care
    role: Cue | None = None  # of the next name
    line: str = TREATMENT  # of treatments
    mentions: list[Mention] = field(default_factory=list)
    names: list[str] = field(default_factory=list)  # of the conditions that are its subjects
    joined: list[tuple[str, str, bool, bool, Words]] = field(
        default_factory=list
    )  # relation, name, positive, hedged, words

    def mention(self, link: Link, kind: str) -> None:
        """Add the mention of a value."""
        start, end, value = link
        if kind == "contagion" and any(one.kind == kind and one.words[1] == start for one in self.mentions[-1:]):
            return  # "cannot be passed on | to other people"
        role = self.role
        if kind == "malignancy" or kind == "category":
            if value != "pre_malignant" and (role == Cue.UNLIKE or (role == Cue.MIMIC and not self.excluding)):
                return
            if role == Cue.BECOME and kind == "malignancy":
                value = "pre_malignant"  # "It turns into cancer."
        elif value == "dark_skin":
            self.dark = True
        positive = self._polarity()
        if self.role == Cue.DIAGNOSIS and self.diagnosed:
            self.role = None
        if kind == "transmission" and any(one.value == "non_contagious" and one.positive for one in self.mentions):
            positive = False  # "cannot be passed on through …"
        if self.excluding or (self.avoided and kind in _CHOSEN):
            positive = not positive
        frequency = self.frequency
        if frequency == "rarely" and not positive:  # "seldom without pain"
            positive, frequency = True, "often"
        self.mentions.append(Mention(value, kind, positive, self.hedged, (start, end), self.line, frequency))

    def _polarity(self) -> bool:
        positive = self.denied == self.wrong
        if self.denied_once:
            self.denied_once, positive = False, not positive
        return positive

    def name(self, link: Link, before: str) -> None:
        """Add the name of a condition, which follows the word `before`."""
        if self.past or self.role == Cue.UNLIKE:
            return
        distance = link[0] - self.denial_end
        trailing = bool(self.mentions) and self.denied_from == len(self.mentions)  # "scale is no mark of psoriasis"
        adjacent = distance == 0 or (distance == 1 and before in _ARTICLES)
        self.name_denied = self.denied and (adjacent or trailing)
        self.name_words = link[:2]
        if self.privative:  # "non-bullous impetigo"
            self.denied_once = self.privative = False
        if self.role == Cue.DIAGNOSIS and self.diagnosed and before not in _JOINING:
            self.role = None
        self.attributive = before in _PREPOSITIONS
        if self._is_subject(before):
            self.names.append(link[2])
        elif relation := self._relation():
            loose = relation == "subtype_of" and self.role is None  # two names that may just stand together
            self.joined.append((relation, link[2], self._polarity(), self.hedged or loose, link[:2]))
            self.diagnosed = self.diagnosed or relation == DIAGNOSIS

    def _is_subject(self, before: str) -> bool:
        """True if the name is the subject of the clause."""
        if self.diagnosed and self.role is None:  # "the hallmark of X, which may follow Y or Z"
            return False
        if self.names:
            return self.role not in _RELATION_OF_ROLE and not self.verb and before in _JOINING
        if self.pairing:
            self.pairing, self.role = False, Cue.MIMIC
            return True
        if self.role == Cue.DIAGNOSIS and self.denied and self.mentions:  # "itch does not point to psoriasis"
            self.flip(self.denied_from)
            self.denied = False
            return True
        if self.role in _RELATION_OF_ROLE:
            return self.role == Cue.MIMIC and before == "of"  # "the differential of psoriasis"
        return self.attributive or not (self.pronoun and self.verb)

    def _relation(self) -> str:
        """The relation of the clause's subject to a further name; empty without one."""
        if self.role in _RELATION_OF_ROLE:
            return _RELATION_OF_ROLE[self.role]
        if self.mentions or self.diagnosed:
            return ""
        return "subtype_of" if self.names else DIAGNOSIS

    def flip(self, up_to: int, *kinds: str) -> bool:
        """Flip the polarity of the first mentions, of some kinds or of all; True if there were any."""
        flipped = [
            mention
            for mention in self.mentions[:up_to]
            if (not kinds or mention.kind in kinds) and mention.value != "dark_skin"
        ]
        for mention in flipped:
            mention.positive = not mention.positive
        if kinds:
            return bool(flipped)
        self.joined = [(one[0], one[1], not one[2], *one[3:]) for one in self.joined]
        return bool(flipped or self.joined)

    def deny(self, denied: bool = True, end: int = -1) -> None:
        """Begin or end the denial of what follows; `end` is the word after the denial."""
        self.denial_end = end
        if denied and not self.denied:
            self.denied_from = len(self.mentions)
        self.denied = denied

    def continued(self) -> Clause:
        """The clause as it goes on behind a parenthesis: its subjects, roles and denials, without what it said."""
        rest = replace(self, mentions=[], joined=[], names=list(self.names), denied_from=0, diagnosed=False)
        rest.resumed = True
        return rest

    def on_leave(self) -> None:
        self.leaving = self.sparing = self.verb = True

    def on_alone(self) -> None:
        if self.leaving:
            self.on_absent()

    def on_alike(self) -> None:
        for name in self.names[1:]:
            self.joined.append(("differential", name, self.denied == self.wrong, self.hedged, self.name_words))
        del self.names[1:]

    def on_wrong(self) -> None:
        self.wrong = not self.wrong
        self.denied = self.pronoun = self.verb = False

    def on_absent(self) -> None:
        if self.denied:  # "not absent"
            self.denied = False
            return
        self.absent = self.verb = True
        if self.cared and self.needed and not self.mentions:
            self._self_care(self.cared)
            return
        if not self.flip(len(self.mentions)):
            self.deny()

    def on_spared(self) -> None:
        if self.denied:
            self.denied = False
        elif not self.flip(len(self.mentions), *_SPARED):
            self.deny()
        self.sparing = self.verb = True

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
        if self.denied and not self.without:
            if self.flip(self.denied_from):
                self.denied = False
            elif self.names and not self.mentions:
                self.absent = True

    def on_rather(self) -> None:
        self.denied_once = True

    def on_non(self) -> None:
        self.denied_once = self.privative = True

    def on_rarely(self) -> None:
        self.frequency = "rarely"

    def on_there(self) -> None:
        self.lesion = self.verb = True

    def on_relieve(self) -> None:
        self.relieving = self.verb = True
        if self.denied and self.denied_from == len(self.mentions):
            self.on_seen()

    def on_need(self) -> None:
        self.needed = self.verb = True

    def on_often(self) -> None:
        self.frequency = "often"
        if self.mentions and self.mentions[-1].kind == "course":  # "metastasises far more often"
            self.mentions[-1].frequency = "often"

    def on_always(self) -> None:
        self.frequency = "always"

    def on_others(self) -> None:
        self.others = self.role != Cue.UNLIKE

    def on_history(self) -> None:
        self.past = True

    def on_likely(self) -> None:
        self.likely = self.verb = True

    def on_distinguish(self) -> None:
        self.pairing = self.verb = True

    def on_spread(self, words: Words) -> None:
        self.spreading = self.verb = True
        self._contagion(words)

    def on_person(self, words: Words) -> None:
        self.person = True
        self._contagion(words)

    def _contagion(self, words: Words) -> None:
        """Add the mention of contagion that "It passes … to your family" makes."""
        if self.spreading and self.person and all(mention.kind != "contagion" for mention in self.mentions):
            self.mentions.append(
                Mention("contagious", "contagion", self.denied == self.wrong, self.hedged, words, self.line)
            )

    def on_care(self, words: Words) -> None:
        """Add medical care; "You do not need a doctor" is a mention of self-care, "I am not a doctor" is none."""
        if self.denied and words[0] - self.denial_end <= _NEAR and self.needed:
            self._self_care(words)
        else:
            self.cared = words

    def _self_care(self, words: Words) -> None:
        if all(mention.kind != "urgency" for mention in self.mentions):
            self.mentions.append(Mention("self_care", "urgency", not self.wrong, self.hedged, words, self.line))

    def on_exclude(self) -> None:
        self.role, self.excluding, self.verb = Cue.MIMIC, True, True

    def on_dark(self) -> None:
        self.dark = True

    def on_it(self) -> None:
        if not self.names:
            self.pronoun = True

    def on_lesion(self) -> None:
        if not self.names:
            self.pronoun = self.lesion = True

    def on_resemble(self) -> None:
        self.role, self.verb = Cue.MIMIC if self.names else Cue.DIAGNOSIS, True

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

    def finish(self) -> None:
        """Apply a denial that nothing followed to the mentions before it: "Nickel does not cause it"."""
        if self.denied and 0 < self.denied_from == len(self.mentions):
            self.flip(self.denied_from, *(() if self.name_denied else _ACTING))
