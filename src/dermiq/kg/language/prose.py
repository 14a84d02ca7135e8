"""Prose against bare lists of terms, and the kinds of claims that a sentence as a whole allows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dermiq.kg.language.assertion import VERBAL, Cue
from dermiq.kg.language.claims import Licensed
from dermiq.kg.linking import Link
from dermiq.kg.relations import CONDITION

ENDS = frozenset((".", "!", "?", ";", "\n"))
PARTING = frozenset((Cue.COMMA, Cue.OR, Cue.BREAK, Cue.WHICH, Cue.CLOSE))
_STATING = frozenset(Cue) - {
    Cue.COMMA, Cue.OR, Cue.CLOSE, Cue.WITHOUT, Cue.DARK, Cue.NEUTRAL, Cue.WHICH, Cue.PERSON, Cue.CARE,
}  # fmt: skip
_MENTIONS_PER_OTHER_WORD = 4
_PHRASE = 3  # so many words of a mention may be a statement


def license_claims(
    tokens: Sequence[str], links: Sequence[Link], kinds: Mapping[str, str], stating: bool, licensed: Licensed
) -> bool:
    """True unless a sentence is a bare list of terms; sets what it licenses.

    Args:
        tokens: its words.
        links: their concepts and cues.
        kinds: identifier -> kind of concept.
        stating: it answers a question.
        licensed: to be set.
    """
    mentions = names = covered = 0
    for start, after, what in links:
        if what.__class__ is str:
            mentions += 1
            names += kinds[what] == CONDITION
            if not _is_statement(tokens[start], after - start, kinds[what]):
                covered += after - start
        elif what in PARTING:
            covered += after - start
        elif what in _STATING:
            stating = True
            licensed.spread = licensed.spread or what is Cue.SPREAD
        elif what is Cue.CARE:
            licensed.care = True
    others = len(tokens) - covered - (tokens[-1] in ENDS)
    something = mentions or licensed.care or licensed.spread
    prose = mentions <= _MENTIONS_PER_OTHER_WORD * others
    licensed.single = not prose and names <= 1 and mentions - names <= 1
    plain = others <= mentions and not stating and all(tokens[link[0]] not in VERBAL for link in links)
    licensed.terse = plain or licensed.single
    return bool(something) and (prose or licensed.single)


def _is_statement(first: str, length: int, kind: str) -> bool:
    """True for a mention that is a statement by itself: "spreads easily", "call an ambulance"."""
    return first in VERBAL or (length >= _PHRASE and kind in ("urgency", "contagion"))
