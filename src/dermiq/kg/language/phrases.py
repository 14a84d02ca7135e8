"""Tests on the words of a sentence that one cue cannot decide."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from dermiq.kg.language.assertion import VERBAL, Cue
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.language.prose import ENDS, PARTING
from dermiq.kg.linking import Link
from dermiq.kg.relations import CONDITION

OUTRIGHT = frozenset(("ambulance", "casualty", "emergency", "urgent", "urgently", "routine", "routinely"))
"""They say how soon without a word of care."""
VERBS = frozenset((Cue.BE, Cue.ITS, Cue.VERB))
_PREDICATES = VERBS | {
    Cue.HEDGE, Cue.NOT, Cue.ABSENT, Cue.AVOID, Cue.SPARED, Cue.LACK, Cue.RARELY, Cue.LIKELY,
}  # fmt: skip
_ARTICLES = (["a"], ["an"], ["the"])
_ASSURANCES = frozenset(
    "a an the so , it is this clearly obvious obviously definite definitely typical certainly evidently plainly just "
    "simple simply".split()
)
GIVING = frozenset("give start begin continue prescribe take".split())
"""At the start of a sentence they say that something does good."""
TIMES = frozenset("day days week weeks fortnight hours".split())
_SORTS = frozenset(("malignancy", "category"))
_SORT_NOUNS = frozenset(
    "cancer cancers malignancy carcinoma tumour tumours tumor tumors infection infections vasculitis growth".split()
)
_COPULAS = frozenset("is are not was be remains".split())
_VERDICTS = frozenset(("malignancy", "contagion", "urgency"))
_NEGATIVE = frozenset(("no", "not", "non", "nothing", "nobody", "cannot", "noncancerous", "noncontagious"))
_AUXILIARIES = frozenset(("do", "does", "needs", "need", "is"))
_NOTIONS = [[word] for word in "idea notion claim belief view assumption suggestion theory myth".split()]
_LAST = 3  # links at the end of a sentence
_WHEN = frozenset(("when", "once", "where", "while"))
_WITH = (["with"], ["for"], ["near"])
_CLEFT = 4  # the last place of what "it is … that" stands around
_ELLIPSIS = 6  # words that may follow a name that stands for a whole statement
_TRAILING = frozenset("is are was were does do did can has have not them either too neither".split())


def negates_itself(kind: str, first: str) -> bool:
    """True for a value whose name is negative, by its first word: "not infectious", "not cancer"."""
    return (kind in _VERDICTS and first in _NEGATIVE) or (kind == "treatment" and first in _AUXILIARIES)


def is_denied_at_the_end(tokens: Sequence[str], links: Sequence[Link]) -> bool:
    """True for "That it is a cancer is a notion that has been given up"."""
    opening = tokens[0] == "that" or (tokens[0] in ("the", "any") and tokens[1:2] in _NOTIONS)
    return opening and any(what is Cue.ABSENT for _, _, what in links[-_LAST:])


def reworded(tokens: Sequence[str], links: Sequence[Link]) -> list[Link]:
    """The links without what only frames a statement.

    "It is … that" around what comes first ("It is a nevus that melanoma mimics"), and the two denials of "Without
    mites there would be no scabies".
    """
    cues = {what: start for start, _, what in links if what.__class__ is not str}
    if tokens[0] == "without" and "would" in tokens and cues.get(Cue.NOT, 0) > tokens.index("would"):
        return [link for link in links if link[2] not in (Cue.WITHOUT, Cue.NOT)]
    if len(links) < 4 or tokens[:2] != ["it", "is"]:
        return list(links)
    start, after, what = links[2]
    first = what.__class__ is str and start <= _CLEFT and tokens[after : after + 1] == ["that"]
    return [link for link in links[2:] if link[0] != after] if first else list(links)


def is_elliptic(rest: Iterable[str]) -> bool:
    """True if a clause ends with its verb, by the words behind its name: "…, but psoriasis | is not (one of them)"."""
    words = [token for token in rest if token not in ENDS]
    return 0 < len(words) <= _ELLIPSIS and words[-1] in _TRAILING


def depends(tokens: Sequence[str], urgent: Sequence[Link], names: Sequence[Link]) -> bool:
    """True for what is urgent "when …", or "(urgent with …)", and for "cellulitis that spreads fast is urgent"."""
    if not urgent:
        return False
    if any(tokens[end : end + 1] == ["that"] and end < urgent[0][0] for _, end, _ in names):
        return True
    after = tokens[urgent[-1][1] :]
    return not _WHEN.isdisjoint(after) or (after[:1] in _WITH and "(" in tokens)


def is_in_passing(tokens: Sequence[str], start: int, after: int, kind: str, hedged: bool) -> bool:
    """True for a noun in a parenthesis that nothing is said to be: "(after cancer treatment)"."""
    said = not _COPULAS.isdisjoint(tokens[max(0, start - 2) : start]) and not hedged
    return kind in _SORTS and tokens[after - 1] in _SORT_NOUNS and not said


def of_aside(claims: Iterable[Claim]) -> Iterator[Claim]:
    """The claims of a parenthesis: "(this would suggest ringworm)" diagnoses nothing, and urgency is of some cases."""
    for claim in claims:
        if claim.relation not in (DIAGNOSIS, "subtype_of"):
            yield claim._replace(conditional=True) if claim.relation == "urgency" else claim


def bare_name(tokens: Sequence[str], links: Sequence[Link], kinds: Mapping[str, str]) -> Link | None:
    """The one condition that a sentence names and says nothing else about: "1. Psoriasis", "Clearly psoriasis."."""
    named = [link for link in links if link[2].__class__ is str]
    if len(named) != 1 or kinds[named[0][2]] != CONDITION:
        return None
    start, end, _ = named[0]
    rest = [token for token in (*tokens[:start], *tokens[end:]) if token not in ENDS and not token.isdigit()]
    return named[0] if _ASSURANCES.issuperset(rest) else None


def clause_follows(
    tokens: Sequence[str], links: Sequence[Link], index: int, predicates: frozenset[Cue] = _PREDICATES
) -> bool:
    """True if a verb follows a link before the next conjunction."""
    end = links[index][1]
    if end < len(tokens) and tokens[end] in VERBAL:
        return True
    for start, _, following in links[index + 1 :]:
        if following in PARTING or tokens[start] == "that":
            return False
        if following in predicates or (following.__class__ is str and tokens[start] in VERBAL):
            return True
    return False


def has_apposition(
    tokens: Sequence[str], links: Sequence[Link], index: int, name: str, kinds: Mapping[str, str]
) -> bool:
    """True for a comma, by its link, as in "It can lead to melanoma, a deadly cancer", and not in a list of names."""
    start, end, _ = links[index]
    if tokens[start] != "," or not name or not index or tokens[end : end + 1] not in _ARTICLES:
        return False
    following = next((what for at, _, what in links[index + 1 :] if at == end + 1), "")
    listed = following.__class__ is str and kinds.get(following) == CONDITION
    return links[index - 1][1] == start and links[index - 1][2] == name and not listed
