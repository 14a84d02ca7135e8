"""Free text -> mentions: the longest surface forms of a vocabulary, whatever their number and spelling.

A token trie over normalised words. Normalising folds case, plurals and British into American spelling, on both
sides alike, so that it need not be linguistically right, only consistent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple

_TOKEN = re.compile(r"[^\W_]+(?:['’][^\W_]+)?|\.(?=\s|$)|[,;:!?()\n—]|(?<!\S)[-–]+(?!\S)")
_IRREGULAR = {
    "lice": "louse", "feet": "foot", "children": "child", "nevi": "nevus", "naevi": "nevus", "bacteria": "bacterium",
    "fungi": "fungus", "bullae": "bulla", "larvae": "larva", "axillae": "axilla", "verrucae": "verruca",
    "comedones": "comedo", "comedone": "comedo", "comedos": "comedo", "petechiae": "petechia", "maxima": "maximum",
    "scabies": "scabies", "species": "species", "series": "series", "does": "does", "was": "was", "has": "has",
    "always": "always", "perhaps": "perhaps", "sometimes": "sometimes", "besides": "besides", "towards": "towards",
    "whereas": "whereas", "unless": "unless", "diabetes": "diabetes", "herpes": "herpes", "rabies": "rabies",
    "it's": "it's", "that's": "that's", "there's": "there's", "goes": "go", "kids": "child", "kid": "child",
}  # fmt: skip
_SPELLING = [
    (re.compile(pattern), american)
    for pattern, american in (
        (r"haem", "hem"), (r"oedem", "edem"), (r"aetiol", "etiol"), (r"colour", "color"), (r"tumour", "tumor"),
        (r"naev", "nev"), (r"paed", "ped"), (r"foet", "fet"), (r"anaem", "anem"), (r"rrhoe", "rrhe"),
        (r"faec", "fec"), (r"leuco", "leuko"), (r"sulph", "sulf"), (r"grey", "gray"), (r"fibre", "fiber"),
        (r"centre", "center"), (r"mould", "mold"), (r"odour", "odor"), (r"behaviour", "behavior"),
        (r"oesoph", "esoph"), (r"caes", "ces"), (r"anaesth", "anesth"), (r"orrhoe", "orrhe"), (r"papilloe", "papille"),
        (r"is(e|ed|es|er|ing|ation)$", r"iz\1"), (r"ys(e|ed|es|ing)$", r"yz\1"), (r"ageing", "aging"),
    )
]  # fmt: skip
_MEMORY = 200_000


class Link(NamedTuple):
    """What was found in words `start` to `end` (exclusive) of a text."""

    start: int
    end: int
    what: Any


def words(text: str) -> list[str]:
    """The words of a text and the punctuation that structures it, in lower case."""
    return _TOKEN.findall(text.lower())


def spans(text: str) -> list[tuple[int, int]]:
    """First and last character (exclusive) of each of the `words` of a text."""
    return [match.span() for match in _TOKEN.finditer(text)]


def normal(word: str) -> str:
    """A word in lower case -> its form for comparison.

    >>> normal("keratoses"), normal("naevi"), normal("tumours"), normal("bowen's")
    ('keratosis', 'nevus', 'tumor', 'bowen')
    """
    word = word.replace("’", "'")
    word = _IRREGULAR.get(word) or word.removesuffix("'s").removesuffix("'")
    word = _IRREGULAR.get(word, word)
    for pattern, american in _SPELLING:
        word = pattern.sub(american, word)
    return _singular(word)


def _singular(word: str) -> str:
    if len(word) <= 3 or not word.endswith("s") or word in _IRREGULAR:
        return word.removesuffix("ta") if word.endswith("omata") else word
    if word.endswith("oses"):
        return word[:-2] + "is"
    if word.endswith("itides"):
        return word[:-4] + "s"
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("sses", "shes", "ches", "xes", "zzes")):
        return word[:-2]
    return word if word.endswith(("ss", "us", "is")) else word[:-1]


class Linker:
    """Finds the surface forms of a vocabulary in text.

    Args:
        entries: (surface form, what it means). The first meaning of a form stays.
    """

    def __init__(self, entries: Iterable[tuple[str, Any]]) -> None:
        self._root: dict[Any, Any] = {}
        self._normal: dict[str, str] = {}
        for form, meaning in entries:
            node = self._root
            for word in words(form):
                node = node.setdefault(self._fold(word), {})
            node.setdefault(None, meaning)
        self._root.pop(None, None)  # an empty form means nothing

    def _fold(self, word: str) -> str:
        folded = self._normal.get(word)
        if folded is None:
            if len(self._normal) >= _MEMORY:
                self._normal.clear()
            folded = self._normal[word] = normal(word)
        return folded

    def link(self, tokens: list[str]) -> list[Link]:
        """The longest forms in the words of a text, from left to right, none overlapping another."""
        memory = self._normal
        folded = [memory.get(word) or self._fold(word) for word in tokens]
        root, found, last, free = self._root, [], len(folded), 0
        for start, word in enumerate(folded):
            if start < free or word not in root:
                continue
            node, best, free_after = root, None, start
            position = start
            while position < last and (node := node.get(folded[position])) is not None:
                position += 1
                if None in node:
                    best, free_after = node[None], position
            if free_after > start:
                found.append(Link(start, free_after, best))
                free = free_after
        return found
