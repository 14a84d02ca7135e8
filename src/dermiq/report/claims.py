"""Claims in an answer: their place in the text, and their verdict by the knowledge graph with its evidence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from dermiq.kg import JudgedClaim, KGScore, KGScorer
from dermiq.kg.condition_page import title
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.linking import spans
from dermiq.kg.scorer import spoken
from dermiq.kg.verbalising import sentences
from dermiq.metrics import CONVERSATION, PredictionRow
from dermiq.prompts import parse

VERDICTS = ("supported", "unknown", "contradicted")


class Note(NamedTuple):
    """A note on a claim: its verdict, the claim as it was read, the facts that decide, their citations."""

    verdict: str
    claim: str
    evidence: str
    citation: str


class Mark(NamedTuple):
    """Characters `start` to `end` (exclusive) of a passage, and the numbers of the notes on the claims they make."""

    start: int
    end: int
    notes: tuple[int, ...]


class Passage(NamedTuple):
    """A part of an answer, under its heading, with marks that do not overlap, in order."""

    heading: str
    text: str
    marks: tuple[Mark, ...]


@dataclass
class ClaimMarker:
    """Marks the claims of answers.

    Attributes:
        scorer: judges them.
        notes: of all claims so far, each once.
    """

    scorer: KGScorer = field(default_factory=KGScorer)
    notes: dict[Note, int] = field(default_factory=dict)

    def mark(self, row: PredictionRow) -> list[Passage]:
        """The passages of the answer in a row of predictions: reasoning and answer, or a reply as it stands."""
        answer = parse(row["completion"])  # in conversation too, as the metrics have it: who was taught tags, uses them
        marks = self._marks(spoken(answer), row)
        if answer.diagnosis is None:
            heading = "Reply" if row["kind"] == CONVERSATION else "Completion without the structure asked for"
            return [Passage(heading, answer.text, marks)]
        start = len(spoken(answer)) - len(answer.diagnosis) - 1  # behind it stands a full stop
        of_thoughts = tuple(mark for mark in marks if mark.end <= len(answer.think))
        of_answer = tuple(
            Mark(mark.start - start, mark.end - start, mark.notes) for mark in marks if mark.start >= start
        )
        return [Passage("Reasoning", answer.think, of_thoughts), Passage("Answer", answer.diagnosis, of_answer)]

    def _marks(self, text: str, row: PredictionRow) -> tuple[Mark, ...]:
        condition = self._condition(row)
        if condition is None:
            return ()
        places = spans(text)
        found: list[Mark] = []
        for start, end, item in sorted(_placed(self.scorer.score(text, condition), places), key=lambda each: each[:2]):
            number = self.notes.setdefault(self._note(item), len(self.notes))
            if found and start < found[-1].end:
                found[-1] = Mark(*found[-1][:2], tuple(dict.fromkeys((*found[-1].notes, number))))
            else:
                found.append(Mark(start, end, (number,)))
        return tuple(found)

    def _condition(self, row: PredictionRow) -> str | None:
        """What the question is about, as `KGScorer.judge` takes it; None where the graph does not know it."""
        name = row["concepts"][0] if row.get("concepts") else row["target"]
        found = self.scorer.graph.lookup(name) if name else None
        return found.id if found else None

    def _note(self, item: JudgedClaim) -> Note:
        claim, graph = item.claim, self.scorer.graph
        value = f"{'' if claim.positive else 'not '}{graph.label(claim.value)}"
        stated = f"{graph.label(claim.subject)}, {title(claim.relation)}: {value}"
        if claim.relation == DIAGNOSIS:
            stated = f"the diagnosis: {value}"
        facts = item.verdict.evidence
        cited = "; ".join(dict.fromkeys(map(graph.cite, facts)))
        hedged = " (said with reserve)" if claim.hedged else ""
        return Note(item.verdict.judgement, stated + hedged, " ".join(sentences(graph, facts)), cited)


def _placed(score: KGScore, places: list[tuple[int, int]]) -> list[tuple[int, int, JudgedClaim]]:
    """The claims with the characters that state them; without those that no words state."""
    return [(*place, item) for item in score.claims if (place := item.claim.place(places))]
