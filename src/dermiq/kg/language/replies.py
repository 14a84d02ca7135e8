"""The yes or no of a sentence that follows a question, and questions that only end a statement."""

from __future__ import annotations

from dermiq.kg.linking import Link

_REPLIES = {
    **dict.fromkeys(("yes", "yeah", "yep", "indeed", "absolutely", "certainly", "correct"), True),
    **dict.fromkeys(("undoubtedly", "definitely", "surely", "sure"), True),
    **dict.fromkeys(("no", "nope", "nah", "never", "hardly"), False),
}
_AFFIRMATIONS = (["it", "does"], ["it", "is"], ["they", "do"], ["they", "are"], ["it", "can"], ["of", "course"])
_ADVERBS = frozenset(("indeed", "so", "very", "certainly", "really", "sometimes", "often"))
_DENIALS = (["by", "no", "means"], ["not", "at", "all"], ["of", "course", "not"])
_PAUSES = frozenset((",", ".", "!", ";", "\n", "-", "–", "—", ":", "it", "they", "not"))
_TAGS = frozenset(("right", "no", "correct", "yes", "eh", "ok", "okay", "agreed", "true"))
_TAG_WORDS = frozenset(
    "is are was were does do did can could will would has have should must not it they this that you".split()
)
_LONGEST_TAG = 4


def reply(tokens: list[str]) -> bool | None:
    """True if the words of a sentence say yes, False for no, None for neither."""
    if tokens[:3] in _DENIALS:
        return False
    first = 2 if tokens[1:2] == [","] else 0  # "Regrettably, it is."
    said, rest = tokens[first : first + 2], tokens[first + 2 : first + 4]
    if said in _AFFIRMATIONS and (not rest or rest[0] in _PAUSES or rest[0] in _ADVERBS):
        return "not" not in rest
    if len(tokens) == 1 or tokens[1] in _PAUSES:
        return _REPLIES.get(tokens[0])
    return None


def has_question_tag(tokens: list[str]) -> bool:
    """True for a statement that ends like a question: "It is benign, isn't it?"."""
    return tokens[-1] == "?" and _tag(tokens) < len(tokens)


def without_question_tag(tokens: list[str], links: list[Link]) -> list[Link]:
    """The links before the words that turn a statement into a question."""
    if not has_question_tag(tokens):
        return links
    end = _tag(tokens)
    return [link for link in links if link[0] < end]


def _tag(tokens: list[str]) -> int:
    """The place of the comma before a question tag; the number of words without one."""
    for length in range(1, _LONGEST_TAG + 1):
        place = len(tokens) - 2 - length
        if place > 1 and tokens[place] == ",":
            said = tokens[place + 1 : -1]
            return place if said[0] in _TAGS or _TAG_WORDS.issuperset(said) else len(tokens)
    return len(tokens)
