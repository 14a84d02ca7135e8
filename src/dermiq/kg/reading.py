"""Free text -> claims, sentence by sentence and clause by clause.

Mentions are collected with the polarity in force. They belong to the condition that the clause names, else to the one
that the sentence is about, else to the case in question.
"""

from __future__ import annotations

from collections.abc import Callable

from dermiq.kg.assertion import CUES, VERBAL, Cue
from dermiq.kg.claims import Claim, Clause, Licensed
from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.linking import Link, Linker, words
from dermiq.kg.relations import CONDITION

_STOP, _QUESTION, _SPREAD, _BE, _VERB = Cue.STOP, Cue.QUESTION, Cue.SPREAD, Cue.BE, Cue.VERB
_CARE = Cue.CARE
_PARTING = frozenset((Cue.COMMA, Cue.OR, Cue.BREAK, Cue.WHICH, Cue.CLOSE))
_PREDICATES = frozenset(
    (Cue.BE, Cue.ITS, Cue.VERB, Cue.HEDGE, Cue.NOT, Cue.ABSENT, Cue.AVOID, Cue.SPARED, Cue.LACK, Cue.RARELY, Cue.LIKELY)
)
_VERBS = frozenset((Cue.BE, Cue.ITS, Cue.VERB))
_STATING = frozenset(Cue) - {
    Cue.COMMA, Cue.OR, Cue.CLOSE, Cue.WITHOUT, Cue.DARK, Cue.NEUTRAL, Cue.WHICH, Cue.PERSON, Cue.CARE,
}  # fmt: skip
_ROLES = frozenset((Cue.DIAGNOSIS, Cue.MIMIC, Cue.BECOME, Cue.FORM, Cue.UNLIKE))
_OUTRIGHT = frozenset(("emergency", "urgent", "urgently", "routine", "routinely"))  # urgency in any company
_AFFIRMATIONS = (["it", "does"], ["it", "is"], ["they", "do"], ["they", "are"], ["it", "can"], ["of", "course"])
_DENIALS = (["by", "no", "means"], ["not", "at", "all"], ["of", "course", "not"])
_PAUSES = frozenset((",", "-", "–", "—", ":", "it", "they", "not"))
_REPLIES = {
    "yes": True, "yeah": True, "yep": True, "no": False, "nope": False, "nah": False,
    "never": False, "indeed": True, "absolutely": True, "certainly": True, "correct": True,
    "undoubtedly": True, "definitely": True, "surely": True, "sure": True, "hardly": False, "no way": False,
}  # fmt: skip
_MENTIONS_PER_OTHER_WORD = 4
_ELLIPSIS = 3  # words that may follow a name that stands for a whole statement: "…, but psoriasis is not"
_PHRASE = 3  # so many words of a mention are prose


class ClaimReader:
    """Reads claims about the conditions of a graph."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._kinds = {concept.id: concept.kind for concept in graph.concepts.values()}
        self._linker = Linker([*graph.by_name.items(), *CUES])

    def mentions(self, text: str) -> list[Link]:
        """The concepts that a text mentions, whatever it says of them."""
        return [link for link in self._linker.link(words(text)) if not isinstance(link[2], Cue)]

    def read(self, text: str, condition: str) -> list[Claim]:
        """The claims of a text about a case of a condition, given by identifier.

        A bare list of terms claims nothing, nor does a question; but a "yes" or a "no" after it does.
        """
        tokens = words(text)
        reading = _Reading(self._kinds, condition, tokens)
        first = 0
        sentence: list[Link] = []
        for link in self._linker.link(tokens):
            what = link[2]
            if what is _STOP or what is _QUESTION:
                reading.read(sentence, first, link[0], what is _QUESTION)
                first, sentence = link[1], []
            else:
                sentence.append(link)
        reading.read(sentence, first, len(tokens), question=False)
        return reading.claims


class _Reading:
    """The reading of one text.

    Args:
        kinds: identifier -> kind of concept.
        case: identifier of the condition in question.
        tokens: the words of the text.
    """

    def __init__(self, kinds: dict[str, str], case: str, tokens: list[str]) -> None:
        self.kinds = kinds
        self.case = case
        self.tokens = tokens
        self.claims: list[Claim] = []
        self.number = 0  # of the sentence
        self.licensed = Licensed()
        self.asked: list[Claim] = []  # what the sentence before asked
        self.answering = False  # the sentence before asked something
        self.carried = case  # what the sentence before was about, which "it" stands for

    def read(self, links: list[Link], first: int, end: int, question: bool) -> None:
        """Read a sentence of the words `first` to `end` (exclusive), in which `links` were found."""
        reply = self._reply(first, end)
        if reply is not None:
            self.claims += [claim._replace(positive=claim.positive == reply) for claim in self.asked]
            if links and links[0][0] == first and links[0][2] == Cue.NOT:
                del links[0]  # this "no" denies the question, not what follows
        before = len(self.claims)
        self._read(links, first, end)
        self.answering = question
        self.asked = self.claims[before:] if question else []
        if question:
            del self.claims[before:]
        self.number += 1

    def _reply(self, first: int, end: int) -> bool | None:
        """Whether a sentence says yes or no to what was asked; None if neither."""
        if first >= end:
            return None
        if self.tokens[first : first + 3] in _DENIALS:
            return False
        said = first + 2 if self.tokens[first + 1 : first + 2] == [","] else first  # "Regrettably, it is."
        if self.tokens[said : said + 2] in _AFFIRMATIONS:
            return "not" not in self.tokens[said : said + 4]
        if end == first + 1 or self.tokens[first + 1] in _PAUSES:
            return _REPLIES.get(self.tokens[first])
        return None

    def _read(self, links: list[Link], first: int, end: int) -> None:
        mentions = covered = 0
        stating = self.answering
        licensed = Licensed(spread=self.answering and self.licensed.spread)
        for start, after, what in links:
            if what.__class__ is str:
                mentions += 1
                if after - start < _PHRASE and self.tokens[start] not in VERBAL:
                    covered += after - start
            elif what is _BE or what is _VERB:
                stating = True
            elif what in _PARTING:
                covered += after - start
            elif what in _STATING:
                stating = True
                if what is _SPREAD:
                    licensed.spread = True
            elif what is _CARE:
                licensed.care = True
        if not mentions and not licensed.care and not licensed.spread:
            return
        others = end - first - covered
        if mentions <= _MENTIONS_PER_OTHER_WORD * others:
            terse = others <= mentions and not stating
            licensed.terse = terse and all(self.tokens[link[0]] not in VERBAL for link in links)
            self.licensed = licensed
            self._follow(links, end)

    def _follow(self, links: list[Link], end: int) -> None:
        """Go through the links of a sentence, clause by clause."""
        self.links = links
        self.about = self.case
        self.clause = clause = Clause()
        self.elided: list[Claim] = []
        self.last_name = self.outer = ""
        self.silent = False
        kinds = self.kinds
        for index, link in enumerate(links):
            what = link[2]
            if what.__class__ is str:
                kind = kinds[what]
                if kind == CONDITION:
                    self.last_name = what
                    clause.name(link, self.tokens[link[0] - 1] if link[0] else "")
                else:
                    if kind == "contagion" or kind == "category":
                        self.licensed.spread = True
                    elif kind == "urgency" and self.tokens[link[0]] in _OUTRIGHT:
                        self.licensed.care = True
                    clause.mention(link, kind)
            elif what is _BE or what is _VERB:  # by far the most frequent
                clause.verb = True
            elif what in _CLAUSE_HANDLERS:
                _CLAUSE_HANDLERS[what](clause)
            elif what in _ROLES:
                clause.role = what
            elif what in _HANDLERS:
                _HANDLERS[what](self, index)
                clause = self.clause
                if self.silent:
                    break
        self.close(end)
        self.carried = self.about

    def close(self, end: int) -> None:
        """End a clause before the word `end`, and draw the claims from it."""
        clause = self.clause
        topic = self.carried if clause.pronoun else self.about
        before = len(self.claims)
        names = clause.names
        if clause.mentions or clause.joined:
            clause.draw(self.claims, names or [topic], self.case, self.number, self.licensed)
            self.elided = self.claims[before:] or self.elided
            if clause.others:
                del self.claims[before:]
        elif names:
            elided = self.elided if end - clause.name_end <= _ELLIPSIS else []
            self.claims += clause.about_names_alone(elided, self.case, self.number)
        self.about = names[-1] if names else topic
        self.clause = Clause(clause.wrong)

    def _clause_follows(self, index: int, predicates: frozenset[Cue] = _PREDICATES) -> bool:
        """True if what follows a link has a verb of its own before the next conjunction."""
        end = self.links[index][1]
        if end < len(self.tokens) and self.tokens[end] in VERBAL:
            return True
        for _, _, following in self.links[index + 1 :]:
            if following in _PARTING:
                return False
            if following in predicates:
                return True
        return False

    def on_comma(self, index: int) -> None:
        if self.clause.role == Cue.UNLIKE:
            self.clause.role = None
        if (self.clause.verb or self.clause.denied) and self._clause_follows(index):
            self.close(self.links[index][0])

    def on_colon(self, index: int) -> None:
        if self._clause_follows(index, _VERBS):
            self.close(self.links[index][0])
        self.clause.verb = True

    def on_break(self, index: int) -> None:
        self.close(self.links[index][0])
        self.clause.wrong = False

    def on_which(self, index: int) -> None:
        named = index > 0 and self.links[index - 1][2] == self.last_name
        names = [self.last_name] if named else []
        self.close(self.links[index][0])
        self.outer = self.about
        self.clause.names, self.clause.relative = names, True

    def on_close(self, index: int) -> None:
        self.close(self.links[index][0])
        self.about = self.outer or self.about

    def on_spread(self, index: int) -> None:
        self.clause.on_spread(self.links[index][:2])

    def on_person(self, index: int) -> None:
        self.clause.on_person(self.links[index][:2])

    def on_lesion(self, index: int) -> None:
        self.clause.on_it()
        if self.clause.denied and self.clause.denial_end == self.links[index][0]:
            self.clause.name_denied = True  # "the palm is free of lesions"

    def on_not(self, index: int) -> None:
        self.clause.deny(end=self.links[index][1])

    def on_without(self, index: int) -> None:
        self.clause.deny(not self.clause.denied, end=self.links[index][1])

    def on_lack(self, index: int) -> None:
        self.on_without(index)
        self.clause.verb = self.clause.name_denied = True

    def on_care(self, index: int) -> None:
        self.clause.on_care(self.links[index][:2])

    def on_if(self, index: int) -> None:
        self.close(self.links[index][0])
        self.silent = True

    def on_inverted(self, index: int) -> None:
        self.silent = self.silent or index == 0


_CLAUSE_HANDLERS: dict[Cue, Callable[[Clause], None]] = {
    Cue.ITS: Clause.on_its,
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
    Cue.RARELY: Clause.on_rarely,
    Cue.HEDGE: Clause.on_hedge,
    Cue.HISTORY: Clause.on_history,
    Cue.LIKELY: Clause.on_likely,
    Cue.DISTINGUISH: Clause.on_distinguish,
    Cue.FIRST: Clause.on_first,
    Cue.SECOND: Clause.on_second,
    Cue.DARK: Clause.on_dark,
}
_HANDLERS: dict[Cue, Callable[[_Reading, int], None]] = {
    Cue.COMMA: _Reading.on_comma,
    Cue.COLON: _Reading.on_colon,
    Cue.BREAK: _Reading.on_break,
    Cue.WHICH: _Reading.on_which,
    Cue.CLOSE: _Reading.on_close,
    Cue.SPREAD: _Reading.on_spread,
    Cue.PERSON: _Reading.on_person,
    Cue.CARE: _Reading.on_care,
    Cue.LESION: _Reading.on_lesion,
    Cue.NOT: _Reading.on_not,
    Cue.LACK: _Reading.on_lack,
    Cue.WITHOUT: _Reading.on_without,
    Cue.IF: _Reading.on_if,
    Cue.INVERTED: _Reading.on_inverted,
}
