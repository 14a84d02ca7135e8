"""Claim extraction from one sentence, clause by clause.

Mentions are collected with the polarity that the cues before them set. They belong to the condition that the clause
names, else to the one that the sentence is about, else to the case in question.
"""

from __future__ import annotations

from collections.abc import Callable

from dermiq.kg.language.assertion import Cue
from dermiq.kg.language.claims import Claim, Licensed, Reading, extract, extract_from_names
from dermiq.kg.language.clauses import Clause
from dermiq.kg.language.phrases import (
    GIVING,
    OUTRIGHT,
    TIMES,
    VERBS,
    bare_name,
    clause_follows,
    depends,
    has_apposition,
    is_denied_at_the_end,
    is_elliptic,
    is_in_passing,
    negates_itself,
    of_aside,
    reworded,
)  # fmt: skip
from dermiq.kg.language.prose import license_claims
from dermiq.kg.language.quantities import has_number, with_numbers
from dermiq.kg.language.replies import has_question_tag, reply, without_question_tag
from dermiq.kg.linking import Link
from dermiq.kg.relations import CONDITION

_BE, _VERB = Cue.BE, Cue.VERB
_ROLES = frozenset((Cue.DIAGNOSIS, Cue.MIMIC, Cue.BECOME, Cue.FORM, Cue.UNLIKE))
_MODALS = frozenset(("may", "might", "could"))
_LISTING = frozenset((Cue.MIMIC, Cue.DISTINGUISH, Cue.ALIKE, Cue.UNLIKE, Cue.HISTORY))
_PATIENTS = frozenset(("woman", "women", "girl", "girls", "mother", "mothers", "lady"))
_PRIVATIVE = frozenset(("no", "without"))


class Sentence:
    """The state of reading one sentence.

    Args:
        kinds: identifier -> kind of concept.
        case: identifier of the condition in question.
        tokens: its words.
        before: the reading of the sentence before.
    """

    def __init__(self, kinds: dict[str, str], case: str, tokens: list[str], before: Reading) -> None:
        self.kinds = kinds
        self.case = case
        self.tokens = tokens
        self.before = before
        self.reading = Reading(about=case, question=tokens[-1] == "?" and not has_question_tag(tokens))
        self.licensed = Licensed(spread=before.question and before.spread)
        self.clause = Clause()
        self.clause.dark = before.question and before.dark
        self.elided: list[Claim] = []
        self.last_name = self.outer = ""
        self.silent = self.conditional = self.sparing = False
        self.interrupted: Clause | None = None

    def read(self, links: list[Link]) -> Reading:
        """The reading of the sentence with these linked concepts and cues."""
        self.links = links = reworded(self.tokens, without_question_tag(self.tokens, links))
        answered = reply(self.tokens) if self.before.question else None
        if answered is not None:
            self.reading.claims += [
                claim._replace(positive=claim.positive == answered, words=(0, 1)) for claim in self.before.asked
            ]
            if links and links[0][0] == 0 and links[0][2] == Cue.NOT:
                del links[0]  # this "no" denies the question, not what follows
        if is_denied_at_the_end(self.tokens, links):
            links = self.links = [link for link in links if link[2] is not Cue.ABSENT]
            self.clause.on_wrong()
        self.clause.relieving = self.tokens[0] in GIVING
        if license_claims(self.tokens, links, self.kinds, self.before.question, self.licensed):
            self._follow()
        reading = self.reading
        if has_number(self.tokens) and all(link[2] is not Cue.HISTORY for link in links):
            treatments, named = self._links_of("treatment"), [link[2] for link in self._links_of("quantity")]
            reading.claims = with_numbers(self.tokens, reading.claims, reading.about, treatments, named)
        if self.conditional or depends(self.tokens, self._links_of("urgency"), self._links_of(CONDITION)):
            reading.claims = [
                claim._replace(conditional=True) if claim.relation == "urgency" else claim
                for claim in reading.claims
                if not self.conditional or self.silent or claim.relation == "urgency"
            ]
        if self.reading.question:
            self.reading.asked, self.reading.claims = self.reading.claims, []
        reading.spread = self.licensed.spread
        reading.listing = any(what in _LISTING for _, _, what in links)
        reading.bare = None if reading.claims or reading.question else bare_name(self.tokens, links, self.kinds)
        return reading

    def _follow(self) -> None:
        """Apply every link in order: a concept is mentioned, a cue changes the clause, gives it a role, or ends it."""
        for index, (start, after, what) in enumerate(self.links):
            if what.__class__ is str:
                self._take_up(start, after, what)
            elif what is _BE or what is _VERB:  # by far the most frequent
                self.clause.verb = True
            elif what in _CLAUSE_HANDLERS:
                _CLAUSE_HANDLERS[what](self.clause)
            elif what in _ROLES:
                if not (what is Cue.FORM and self.clause.role is Cue.BECOME):  # "turns into a type of …"
                    self.clause.role = what
                self.clause.verb = self.clause.verb or what is Cue.BECOME
            elif what in _HANDLERS:
                _HANDLERS[what](self, index)
                if self.silent:
                    break
        self.close(len(self.tokens))

    def _take_up(self, start: int, after: int, what: str) -> None:
        kind = self.kinds[what]
        if kind == CONDITION:
            self.last_name = what
            self.clause.name((start, after, what), self.tokens[start - 1] if start else "")
            return
        if self.interrupted and is_in_passing(self.tokens, start, after, kind, self.clause.hedged):
            return
        if negates_itself(kind, self.tokens[start]):
            self.clause.deny(False)
        if kind == "contagion" or kind == "category":
            self.licensed.spread = True
        elif kind == "urgency" and self.tokens[start] in OUTRIGHT:
            self.licensed.care = True
        elif kind == "urgency" and not self.licensed.care and TIMES.intersection(self.tokens[start:after]):
            return  # "it lasts two weeks" says nothing of a doctor
        self.clause.mention((start, after, what), kind)

    def close(self, end: int) -> None:
        """End the clause before the word `end`, and extract its claims."""
        clause, reading = self.clause, self.reading
        names = clause.names
        topic = self._topic()
        if clause.mentions or clause.joined:
            claims = extract(clause, topic, self.case, self.licensed)
            if self.interrupted and self.interrupted.verb:
                claims = list(of_aside(claims))
            self.elided, self.sparing = (claims, clause.sparing) if claims else (self.elided, self.sparing)
            if not clause.others:
                reading.claims += claims
        elif names and not clause.resumed and not self.interrupted:
            elided = self.elided if is_elliptic(self.tokens[clause.name_words[1] : end]) else []
            reading.claims += extract_from_names(clause, elided, self.sparing, self.case)
        reading.dark = reading.dark or clause.dark
        reading.about = names[-1] if names else topic
        self.clause = Clause(clause.wrong)
        self.clause.dark = bool(self.interrupted and self.interrupted.dark)

    def _links_of(self, kind: str) -> list[Link]:
        return [link for link in self.links if link[2].__class__ is str and self.kinds[link[2]] == kind]

    def _topic(self) -> str:
        """What a clause without a name is about."""
        if self.clause.lesion:
            return self.case
        return self.before.about if self.clause.pronoun else self.reading.about

    def on_comma(self, index: int) -> None:
        if self.clause.role == Cue.UNLIKE:
            self.clause.role = None
        clause = self.clause
        if clause.mentions and clause.mentions[-1].frequency:
            clause.frequency = ""
        initial = index > 0 and self.links[0][0] == 0 and self.links[0][2] is Cue.WITHOUT
        if clause.without and (initial or clause.denied_from == len(clause.mentions)):  # "without a lens, …"
            clause.deny(False)
        if self.interrupted and clause.denied and self.tokens[clause.denial_end - 1] in _PRIVATIVE:
            clause.deny(False)  # "(no comedones, flushing, older age)"
        if (clause.verb or (clause.denied and clause.mentions)) and clause_follows(self.tokens, self.links, index):
            self.close(self.links[index][0])
        elif self.last_name not in clause.names and has_apposition(
            self.tokens, self.links, index, self.last_name, self.kinds
        ):
            self.close(self.links[index][0])
            self.clause.names, self.clause.relative = [self.last_name], True

    def on_or(self, index: int) -> None:
        if index == 0 and self.tokens[self.links[0][0]] == "nor":  # "Nor does it itch."
            self.clause.deny(end=self.links[0][1])

    def on_colon(self, index: int) -> None:
        dark = self.clause.dark
        if clause_follows(self.tokens, self.links, index, VERBS):
            self.close(self.links[index][0])
        self.clause.verb, self.clause.dark = True, dark

    def on_its(self, index: int) -> None:
        if (self.clause.verb or self.clause.denied) and (
            self.clause.mentions or self.clause.names
        ):  # "it isn't a worm it's a fungus"
            self.close(self.links[index][0])
        self.clause.on_its()

    def on_break(self, index: int) -> None:
        names = self.clause.names if self.interrupted else []  # of a parenthesis
        self.close(self.links[index][0])
        self.clause.wrong, self.clause.names = False, names

    def on_which(self, index: int) -> None:
        start = self.links[index][0]
        if self.tokens[start] == "who" and start and self.tokens[start - 1] in _PATIENTS:
            return  # "in a woman who is pregnant"
        if self.tokens[start] == "(":
            self.interrupted = self.clause.continued()
        behind = index - 1 if index and self.links[index - 1][2] is not Cue.COMMA else index - 2
        named = behind >= 0 and self.links[behind][2] == self.last_name
        nobody = self.clause.denied and not self.clause.mentions and not named  # "Nobody who …"
        self.close(self.links[index][0])
        self.clause.deny(nobody)
        self.outer = self.reading.about
        self.clause.names, self.clause.relative = [self.last_name] if named else [], True

    def on_close(self, index: int) -> None:
        self.close(self.links[index][0])
        self.reading.about = self.outer or self.reading.about
        self.clause, self.interrupted = self.interrupted or self.clause, None

    def on_distinguish(self, index: int) -> None:
        """Two names follow; "Do not confuse them" claims that they look alike."""
        if self.tokens[0] in ("do", "never") and index and self.links[index - 1][2] == Cue.NOT:
            self.clause.deny(False)
        self.clause.on_distinguish()

    def on_hedge(self, index: int) -> None:
        self.clause.hedged = True
        self.clause.verb = self.clause.verb or self.tokens[self.links[index][0]] in _MODALS

    def on_lesion(self, index: int) -> None:
        start = self.links[index][0]
        if start and self.tokens[start] == "that":  # "it is certain that …"
            self.clause.pronoun = self.clause.verb = False
            return
        self.clause.on_lesion()
        if self.clause.without and self.tokens[start] == "that":  # "without pus that persist …"
            self.clause.deny(False)
        if self.clause.denied and self.clause.denial_end == self.links[index][0]:
            self.clause.name_denied = True  # "the palm is free of lesions"

    def on_not(self, index: int) -> None:
        start, end, _ = self.links[index]
        self.clause.deny(end=end)
        if self.tokens[start] == "never" and not self.interrupted:
            self.clause.frequency = "always"

    def on_without(self, index: int) -> None:
        self.clause.deny(not self.clause.denied, end=self.links[index][1])
        self.clause.without = self.clause.denied

    def on_lack(self, index: int) -> None:
        self.on_without(index)
        self.clause.without = False
        self.clause.verb = self.clause.name_denied = True

    def on_spread(self, index: int) -> None:
        self.clause.on_spread(self.links[index][:2])

    def on_person(self, index: int) -> None:
        self.clause.on_person(self.links[index][:2])

    def on_care(self, index: int) -> None:
        self.clause.on_care(self.links[index][:2])

    def on_if(self, index: int) -> None:
        self.close(self.links[index][0])
        self.silent = not (index == 0 and self._links_of("red_flag") and self._links_of("urgency"))
        named = [start for start, _, _ in self._links_of(CONDITION) if start > self.links[index][0]]
        self.conditional = not named  # "if it is psoriasis" is no further sign

    def on_inverted(self, index: int) -> None:
        self.silent = self.silent or index == 0


# Cues that change the clause alone.
_CLAUSE_HANDLERS: dict[Cue, Callable[[Clause], None]] = {
    Cue.IT: Clause.on_it,
    Cue.LEAVE: Clause.on_leave,
    Cue.ALONE: Clause.on_alone,
    Cue.ALIKE: Clause.on_alike,
    Cue.WRONG: Clause.on_wrong,
    Cue.ABSENT: Clause.on_absent,
    Cue.SPARED: Clause.on_spared,
    Cue.AVOID: Clause.on_avoid,
    Cue.WORSEN: Clause.on_worsen,
    Cue.SEEN: Clause.on_seen,
    Cue.OTHERS: Clause.on_others,
    Cue.RATHER: Clause.on_rather,
    Cue.NON: Clause.on_non,
    Cue.RARELY: Clause.on_rarely,
    Cue.OFTEN: Clause.on_often,
    Cue.ALWAYS: Clause.on_always,
    Cue.RESEMBLE: Clause.on_resemble,
    Cue.NEED: Clause.on_need,
    Cue.THERE: Clause.on_there,
    Cue.RELIEVE: Clause.on_relieve,
    Cue.HISTORY: Clause.on_history,
    Cue.LIKELY: Clause.on_likely,
    Cue.EXCLUDE: Clause.on_exclude,
    Cue.FIRST: Clause.on_first,
    Cue.SECOND: Clause.on_second,
    Cue.DARK: Clause.on_dark,
}
# Cues that need the sentence around them: words, other links, the end of the clause.
_HANDLERS: dict[Cue, Callable[[Sentence, int], None]] = {
    Cue.COMMA: Sentence.on_comma,
    Cue.OR: Sentence.on_or,
    Cue.COLON: Sentence.on_colon,
    Cue.ITS: Sentence.on_its,
    Cue.BREAK: Sentence.on_break,
    Cue.STOP: Sentence.on_break,
    Cue.WHICH: Sentence.on_which,
    Cue.CLOSE: Sentence.on_close,
    Cue.DISTINGUISH: Sentence.on_distinguish,
    Cue.HEDGE: Sentence.on_hedge,
    Cue.LESION: Sentence.on_lesion,
    Cue.SPREAD: Sentence.on_spread,
    Cue.PERSON: Sentence.on_person,
    Cue.CARE: Sentence.on_care,
    Cue.NOT: Sentence.on_not,
    Cue.LACK: Sentence.on_lack,
    Cue.WITHOUT: Sentence.on_without,
    Cue.IF: Sentence.on_if,
    Cue.INVERTED: Sentence.on_inverted,
}
