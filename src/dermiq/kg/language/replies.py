"""The yes or no of a sentence that follows a question."""

from __future__ import annotations

_REPLIES = {
    **dict.fromkeys(("yes", "yeah", "yep", "indeed", "absolutely", "certainly", "correct"), True),
    **dict.fromkeys(("undoubtedly", "definitely", "surely", "sure"), True),
    **dict.fromkeys(("no", "nope", "nah", "never", "hardly"), False),
}
_AFFIRMATIONS = (["it", "does"], ["it", "is"], ["they", "do"], ["they", "are"], ["it", "can"], ["of", "course"])
_DENIALS = (["by", "no", "means"], ["not", "at", "all"], ["of", "course", "not"])
_PAUSES = frozenset((",", ".", "!", ";", "\n", "-", "–", "—", ":", "it", "they", "not"))


def reply(tokens: list[str]) -> bool | None:
    """True if the words of a sentence say yes, False for no, None for neither."""
    if tokens[:3] in _DENIALS:
        return False
    first = 2 if tokens[1:2] == [","] else 0  # "Regrettably, it is."
    if tokens[first : first + 2] in _AFFIRMATIONS:
        return "not" not in tokens[first : first + 4]
    if len(tokens) == 1 or tokens[1] in _PAUSES:
        return _REPLIES.get(tokens[0])
    return None
