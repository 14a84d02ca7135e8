"""Entity linking: the longest surface forms of a vocabulary in free text, by a token trie over normalised words.

Normalisation folds case, plurals and British into American spelling. Text and vocabulary are folded alike, so it need
not be linguistically right, only consistent.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cached_property
from typing import Any

from dermiq.kg.normalising import normalise, without_accents
from dermiq.kg.typos import Typos

# Latin words, with an English contraction, and Chinese characters; other scripts hold none of the vocabulary.
_TOKEN = re.compile(
    r"\d+[.,]\d+|%|[0-9a-zß-ɏ]+(?:(?<=n)['’]t|['’](?:s|re|ve|ll|d|m))?(?![a-zß-ɏ])|[㐀-鿿]"
    r"|\.(?=\s|$)|[,;:!?()\n—]|(?<!\S)[-–]+(?!\S)"
)
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
_VERB_OF = {"ca": "can", "wo": "will", "sha": "shall"}
_MEMORY = 200_000  # normal forms that are cached


Link = tuple[int, int, Any]
"""A surface form in a text: its first word, its last (exclusive), and its meaning."""

_Node = list[Any]  # [what ends here or None, word -> node]


def _lower(text: str) -> str:
    """The text in lower case and of the same length; a few capitals, such as the dotted I, stay."""
    lower = text.lower()
    return lower if len(lower) == len(text) else "".join(c.lower() if len(c.lower()) == 1 else c for c in text)


def words(text: str) -> list[str]:
    """The words of a text and the punctuation that structures it, normalised, in lower case; "isn't" is two words."""
    lower = _lower(normalise(text).text)
    found = _TOKEN.findall(lower)
    if "n't" in lower or "n’t" in lower:
        return [part for word in found for part in _uncontracted(word)]
    return found


def spans(text: str) -> list[tuple[int, int]]:
    """First and last character (exclusive) of each of the `words` of a text."""
    normal = normalise(text)
    places = normal.places
    found = []
    for match in _TOKEN.finditer(_lower(normal.text)):
        start, end = match.span()
        if len(_uncontracted(match.group())) == 2:
            found += [(places[start], places[end - 4] + 1), (places[end - 3], places[end - 1] + 1)]
        else:
            found.append((places[start], places[end - 1] + 1))
    return found


def _uncontracted(word: str) -> tuple[str, ...]:
    if not word.endswith(("n't", "n’t")) or len(word) < 5:
        return (word,)
    return _VERB_OF.get(word[:-3], word[:-3]), "not"


def normal(word: str) -> str:
    """The normal form of a word in lower case.

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


def name_key(name: str) -> tuple[str, ...]:
    """A name as a key: its words in normal form, the same for every case, number and spelling."""
    return tuple(map(normal, words(name)))


class Linker:
    """Finds the surface forms of a vocabulary in text.

    Args:
        entries: (surface form, meaning); of two meanings of a form the first one counts.
        forgiving: link misspelt words too.
    """

    def __init__(self, entries: Iterable[tuple[str, Any]], forgiving: bool = False) -> None:
        self._root: dict[str, _Node] = {}
        self._normal: dict[str, str] = {}
        self._forgiving = False  # the vocabulary corrects nothing before it is whole
        for form, meaning in entries:
            node: _Node = [None, self._root]
            for word in words(form):
                node = node[1].setdefault(self._fold(word), [None, {}])
            if node[0] is None:
                node[0] = meaning
        self._words = frozenset(self._normal.values())
        self._forgiving = forgiving

    @cached_property
    def _typos(self) -> Typos:
        return Typos(self._words)

    def _fold(self, word: str) -> str:
        folded = self._normal.get(word)
        if folded is None:
            if len(self._normal) >= _MEMORY:
                self._normal.clear()
            folded = self._normal[word] = self._corrected(word)
        return folded

    def _corrected(self, word: str) -> str:
        """The normal form of a word, or of the vocabulary's word that it misspells or writes with accents."""
        raw = without_accents(word)
        plain = normal(raw) if self._forgiving else ""
        word = normal(word)
        if not self._forgiving or word in self._words:
            return word
        return plain if plain in self._words else self._typos.correct(plain) or self._typos.correct(raw) or word

    def corrects(self, word: str) -> bool:
        """True for a word in normal form that is taken for another one."""
        return self._corrected(word) != word

    def link(self, tokens: list[str]) -> list[Link]:
        """The links of the words of a text: the longest forms, from left to right, without overlap."""
        memory, root = self._normal, self._root
        folded = [memory.get(word) or self._fold(word) for word in tokens]
        found: list[Link] = []
        last, free = len(folded), 0
        for start, node in enumerate(map(root.get, folded)):
            if node is None or start < free:
                continue
            what, children = node
            position = end = start + 1
            while children and position < last:
                node = children.get(folded[position])
                if node is None:
                    break
                longer, children = node
                position += 1
                if longer is not None:
                    what, end = longer, position
            if what is not None:
                found.append((start, end, what))
                free = end
        return found
