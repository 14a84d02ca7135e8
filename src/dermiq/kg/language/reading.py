"""Claim extraction from free text, sentence by sentence.

Readings of sentences are cached: the answers of one group, and of one model, share many.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise

from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.language.assertion import CUES, Cue
from dermiq.kg.language.claims import Claim, Reading
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.language.extraction import Extraction
from dermiq.kg.language.prose import ENDS
from dermiq.kg.language.sentences import Sentence
from dermiq.kg.language.translation import UNREAD, Translator, condition_names
from dermiq.kg.linking import Link, Linker, spans, words
from dermiq.kg.normalising import other_scripts

_LONGEST = 256  # words of a sentence
_MEMORY = 32_768  # readings


class ClaimReader:
    """Extracts the claims of texts about the conditions of a graph."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._kinds = {concept.id: concept.kind for concept in graph.concepts.values()}
        self._graph = graph
        known = {concept.id for concept in graph.conditions}
        foreign = [(name, condition) for name, condition in condition_names() if condition in known]
        self._linker = Linker([*graph.by_name.items(), *CUES, *foreign], forgiving=True)
        self._memory: dict[tuple[str, ...], Reading] = {}

    @cached_property
    def _translator(self) -> Translator:
        labels = {concept.id: concept.label for concept in self._graph.conditions}
        return Translator(labels, [*self._graph.by_name, *(phrase for phrase, _ in CUES)])

    def mentions(self, text: str) -> list[Link]:
        """The concepts that a text mentions, asserted or not."""
        return [link for link in self.links(text) if not isinstance(link[2], Cue)]

    def corrects(self, word: str) -> bool:
        """True for a word in normal form that is taken for a misspelt one of the vocabulary."""
        return self._linker.corrects(word)

    def links(self, text: str) -> list[Link]:
        """The concepts and cues that a text holds, in its order."""
        return self._linker.link(words(text))

    def read(self, text: str, case: str) -> Extraction:
        """The claims of a text about a case, a condition given by identifier.

        A bare list of terms makes no claim, nor does a question; a "yes" or a "no" after the question does. The only
        condition that stands alone in a sentence or a line is a diagnosis.
        """
        claims: list[Claim] = []
        unread: list[tuple[int, int]] = []
        tokens = words(text)
        before = Reading(about=case)
        bare: list[Claim] = []
        listing = False
        for number, (first, end) in enumerate(_sentences(tokens)):
            reading = self._cached(tokens[first:end], case, before)
            claims += [
                claim._replace(words=(claim.words[0] + first, claim.words[1] + first), sentence=number)
                for claim in reading.claims
            ]
            if reading.unread:
                unread.append((first, end))
            listing = listing or reading.listing
            if reading.bare and not listing and not before.question:
                start, after, name = reading.bare
                bare.append(Claim(case, DIAGNOSIS, name, True, words=(start + first, after + first), sentence=number))
            before = reading
        if len({claim.value for claim in bare}) == 1:  # several names alone are a list, which asserts nothing
            claims.append(bare[0])
        places = spans(text) if unread else []
        spoken = [(places[first][0], places[end - 1][1]) for first, end in unread]
        return Extraction(claims, [*spoken, *other_scripts(text)])

    def _cached(self, tokens: list[str], case: str, before: Reading) -> Reading:
        """The reading of a sentence, from the cache unless it follows a question, on which it may depend."""
        if before.question:
            return self._read(tokens, case, before)
        key = (case, before.about, *tokens)
        reading = self._memory.get(key)
        if reading is None:
            if len(self._memory) >= _MEMORY:
                self._memory.clear()
            reading = self._memory[key] = self._read(tokens, case, before)
        return reading

    def _read(self, tokens: list[str], case: str, before: Reading) -> Reading:
        language = self._translator.language(tokens)
        if language == "en":
            return Sentence(self._kinds, case, tokens, before).read(self._linker.link(tokens))
        if language == UNREAD:
            return Reading(about=before.about, unread=True)
        gloss = self._translator.gloss(tokens, language)
        reading = Sentence(self._kinds, case, gloss.tokens, before).read(self._linker.link(gloss.tokens))
        return gloss.restore(reading)


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """First and last character (exclusive) of each sentence, which together are the text."""
    places = spans(text)
    ends = [places[end - 1][1] for _, end in _sentences(words(text))]
    return list(pairwise([0, *ends[:-1], len(text)])) if ends else []


def _sentences(tokens: list[str]) -> Iterator[tuple[int, int]]:
    """First and last word (exclusive, behind the final mark) of each sentence; one of over 256 words is cut."""
    first = 0
    ends = []
    within = False  # a parenthesis, where a semicolon ends no sentence
    for position, token in enumerate(tokens):
        if token in ENDS and not (within and token == ";"):
            ends.append(position + 1)
            within = False
        elif token == "(" or token == ")":
            within = token == "("
    for end in [*ends, len(tokens)]:
        while end - first > _LONGEST:
            yield first, first + _LONGEST
            first += _LONGEST
        if end - first > 1 or (end > first and tokens[first] not in ENDS):
            yield first, end
        first = end
