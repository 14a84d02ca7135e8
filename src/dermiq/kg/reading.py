"""Free text -> claims, sentence by sentence and clause by clause.

Mentions are collected with the polarity in force. They belong to the condition that the clause names, else to the one
that the sentence is about, else to the case in question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dermiq.kg.assertion import CUES, VERBAL, Cue
from dermiq.kg.claims import Claim, Clause
from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.linking import Link, Linker, words
from dermiq.kg.relations import CONDITION

_ENDING = frozenset((Cue.STOP, Cue.QUESTION))
_PARTING = frozenset((Cue.COMMA, Cue.OR, Cue.BREAK, Cue.WHICH, Cue.CLOSE))
_PREDICATES = frozenset(
    (Cue.BE, Cue.ITS, Cue.VERB, Cue.NOT, Cue.ABSENT, Cue.AVOID, Cue.SPARED, Cue.LACK, Cue.RARELY, Cue.LIKELY)
)
_NOT_STATING = frozenset((Cue.COMMA, Cue.OR, Cue.CLOSE, Cue.WITHOUT, Cue.DARK, Cue.NEUTRAL, Cue.WHICH, Cue.NOT))
_ROLES = frozenset((Cue.DIAGNOSIS, Cue.MIMIC, Cue.BECOME, Cue.FORM, Cue.UNLIKE))
_ATTRIBUTIVE = frozenset(("of", "in", "with", "for"))
_REPLIES = {"yes": True, "yeah": True, "yep": True, "no": False, "nope": False, "nah": False}
_MENTIONS_PER_OTHER_WORD = 4


class ClaimReader:
    """Reads claims about the conditions of a graph."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._kinds = {concept.id: concept.kind for concept in graph.concepts.values()}
        self._linker = Linker([*graph.by_name.items(), *CUES])

    def mentions(self, text: str) -> list[Link]:
        """The concepts that a text mentions, whatever it says of them."""
        return [link for link in self._linker.link(words(text)) if not isinstance(link.what, Cue)]

    def read(self, text: str, condition: str) -> list[Claim]:
        """The claims of a text about a case of a condition, given by identifier.

        A bare list of terms claims nothing, nor does a question; but a "yes" or a "no" after it does.
        """
        tokens = words(text)
        claims: list[Claim] = []
        asked: list[Claim] = []
        carried, number, first = condition, 0, 0
        sentence: list[Link] = []
        for link in [*self._linker.link(tokens), Link(len(tokens), len(tokens), Cue.STOP)]:
            if link.what not in _ENDING:
                sentence.append(link)
                continue
            reply = _REPLIES.get(tokens[first]) if first < link.start else None
            if reply is not None:
                claims += [replace(claim, positive=claim.positive == reply) for claim in asked]
                if sentence and sentence[0].start == first:
                    del sentence[0]  # this "no" denies the question, not what follows
            asked = []
            mentions, others = _counts(sentence, link.start - first)
            if mentions and mentions <= _MENTIONS_PER_OTHER_WORD * others:
                reading = _Sentence(self._kinds, condition, carried, number, tokens, sentence)
                reading.read(others < mentions + 2)
                carried = reading.about
                if link.what == Cue.QUESTION:
                    asked = reading.claims
                else:
                    claims += reading.claims
            number, first, sentence = number + 1, link.end, []
        return claims


def _counts(sentence: list[Link], length: int) -> tuple[int, int]:
    """How many concepts a sentence mentions, and how many other words it has; conjunctions count as neither."""
    mentions = covered = 0
    for start, end, what in sentence:
        if what.__class__ is str:
            mentions += 1
            covered += end - start
        elif what in _PARTING:
            covered += end - start
    return mentions, length - covered


@dataclass(slots=True)
class _Sentence:
    """The reading of one sentence.

    Attributes:
        kinds: identifier -> kind of concept.
        case: identifier of the condition in question.
        carried: what the sentence before was about, which "it" stands for.
        number: of the sentence.
        tokens: the words of the text.
        links: what was found in them, of this sentence.
        claims: what was read so far.
        about: what the sentence is about.
    """

    kinds: dict[str, str]
    case: str
    carried: str
    number: int
    tokens: list[str]
    links: list[Link]
    claims: list[Claim] = field(default_factory=list)
    about: str = ""
    clause: Clause = field(default_factory=Clause)
    elided: list[Claim] = field(default_factory=list)
    last_name: str = ""
    outer: str = ""
    terse: bool = False
    spread: bool = False
    silent: bool = False

    def read(self, short: bool) -> None:
        """Read it; `short` says that it has hardly a word beside its mentions."""
        self.about = self.case
        self.spread = any(link.what is Cue.SPREAD for link in self.links)
        self.terse = short and not any(self._states(link) for link in self.links)
        for index, (start, end, what) in enumerate(self.links):
            if what.__class__ is str:
                kind = self.kinds[what]
                if kind == CONDITION:
                    self.last_name = what
                    self.clause.name(what, (start, end), start > 0 and self.tokens[start - 1] in _ATTRIBUTIVE)
                else:
                    self.spread = self.spread or kind == "contagion" or kind == "category"
                    self.clause.mention(what, kind, (start, end))
            elif what in _ROLES:
                self.clause.role = what
            elif handler := _CLAUSE_HANDLERS.get(what):
                handler(self.clause)
            elif sentence_handler := _HANDLERS.get(what):
                sentence_handler(self, index)
                if self.silent:
                    break
        self.close()

    def _states(self, link: Link) -> bool:
        if isinstance(link.what, Cue):
            return link.what not in _NOT_STATING
        return self.tokens[link.start] in VERBAL

    def close(self) -> None:
        """End a clause, and draw the claims from it."""
        clause = self.clause
        topic = self.carried if clause.pronoun else self.about
        before = len(self.claims)
        if clause.mentions or clause.joined:
            subjects = clause.names or [topic]
            self.claims += clause.claims(subjects, self.case, self.number, self.terse, self.spread)
        elif clause.names:
            self.claims += clause.about_names_alone(self.elided, self.case, self.number)
        if len(self.claims) > before:
            self.elided = self.claims[before:]
        self.about = clause.names[-1] if clause.names else topic
        self.clause = Clause(clause.wrong)

    def _clause_follows(self, index: int) -> bool:
        """True if what follows a link has a verb of its own before the next conjunction."""
        end = self.links[index].end
        if end < len(self.tokens) and self.tokens[end] in VERBAL:
            return True
        for following in self.links[index + 1 :]:
            if following.what in _PARTING:
                return False
            if following.what in _PREDICATES:
                return True
        return False

    def on_comma(self, index: int) -> None:
        if self.clause.role == Cue.UNLIKE:
            self.clause.role = None
        if self.clause.verb and self._clause_follows(index):
            self.close()

    def on_colon(self, index: int) -> None:
        if self._clause_follows(index):
            self.close()
        self.clause.verb = True

    def on_break(self, index: int) -> None:
        self.close()

    def on_which(self, index: int) -> None:
        named = index > 0 and self.links[index - 1].what == self.last_name
        names = [self.last_name] if named else list(self.clause.names)
        self.close()
        self.outer = self.about
        self.clause.names = names

    def on_close(self, index: int) -> None:
        self.close()
        self.about = self.outer or self.about

    def on_not(self, index: int) -> None:
        self.clause.deny()
        if self.tokens[self.links[index].start].endswith(("n't", "cannot")):
            self.clause.verb = True

    def on_if(self, index: int) -> None:
        self.close()
        self.silent = True

    def on_inverted(self, index: int) -> None:
        self.silent = self.silent or index == 0


_CLAUSE_HANDLERS: dict[Cue, Callable[[Clause], None]] = {
    Cue.BE: Clause.on_verb,
    Cue.VERB: Clause.on_verb,
    Cue.SPREAD: Clause.on_verb,
    Cue.ITS: Clause.on_its,
    Cue.IT: Clause.on_it,
    Cue.LESION: Clause.on_it,
    Cue.LACK: Clause.on_lack,
    Cue.WITHOUT: Clause.on_without,
    Cue.WRONG: Clause.on_wrong,
    Cue.ABSENT: Clause.on_absent,
    Cue.SPARED: Clause.on_spared,
    Cue.AVOID: Clause.on_avoid,
    Cue.WORSEN: Clause.on_avoid,
    Cue.SEEN: Clause.on_seen,
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
_HANDLERS: dict[Cue, Callable[[_Sentence, int], None]] = {
    Cue.COMMA: _Sentence.on_comma,
    Cue.COLON: _Sentence.on_colon,
    Cue.BREAK: _Sentence.on_break,
    Cue.WHICH: _Sentence.on_which,
    Cue.CLOSE: _Sentence.on_close,
    Cue.NOT: _Sentence.on_not,
    Cue.IF: _Sentence.on_if,
    Cue.INVERTED: _Sentence.on_inverted,
}
