"""Preference pairs for DPO, formed from the sampled answers to one question by the knowledge graph.

A pair is two answers whose scores (`dermiq.kg.scorer`) differ by at least a margin. The rules:

* **left out** are answers cut off at the length limit, since a pair with one would teach where to stop and not what is
  true, and answers that repeat an earlier one but for case, white space and punctuation.
* **chosen** is an answer without contradicted claims that names the condition, or answers a question that does, so
  that what suits any image is never preferred; where a diagnosis is asked for, it has the structure and a diagnosis.
  The best score comes first; of equal scores, an answer sampled without facts in the prompt, which is nearer to the
  policy.
* **comparable** are two answers if the longer has at most `max_length_ratio` times the words of the shorter, so that
  length is not what is learned; if neither is the beginning of the other; and if a claim decides: one of the rejected
  answer that the graph contradicts, or a supported one of the chosen answer that the rejected lacks. A word without a
  claim is therefore never the difference.
* **rejected** is one of the answers whose score is lower by at least the margin. First come plausible mistakes
  (structured, about the case, contradicted), then answers that say too little, then malformed or irrelevant ones.
  Within each kind, answers sampled without facts in the prompt come before those with facts, likelier ones before
  rarer ones, nearer scores before lower ones. The likelihood comes before the score because the score falls with the
  severity of a mistake: the nearest would always be the most harmless, and lowering the likelihood of what the policy
  says most often is what lowers its rate of mistakes. The margin alone guards against noise of the judge.
* an answer is in one pair at most.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dermiq.kg.records import as_record
from dermiq.kg.scorer import JudgedClaim, KGScore, KGScorer, spoken
from dermiq.prompts import QUESTION, parse
from dermiq.ranges import check_numbers
from dermiq.schema import Answer, Candidate, CandidateRecord, KnowledgeError, Sample

Record = dict[str, Any]

CUT_OFF = "cut off at max_new_tokens"
REPEATED = "repeats another answer"
NO_TARGET = "no target to judge by"
NONE_FIT = "no answer fit to be chosen"
BELOW_MARGIN = "below the margin"
OTHER_LENGTH = "other length"
NO_MISTAKE = "below the margin without a mistake"
TRIVIAL = "no deciding difference"
NOT_NEEDED = "not needed"
_REASONS = ("", NONE_FIT, BELOW_MARGIN, OTHER_LENGTH, NO_MISTAKE, TRIVIAL, NOT_NEEDED)  # the later one is shown


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """A candidate answer with its score."""

    candidate: Candidate
    answer: Answer
    score: KGScore
    words: tuple[str, ...]
    place: int
    structured: bool

    @property
    def fit(self) -> bool:
        """True if it can be the chosen answer."""
        return self.structured and self.score.named and not self.score.contradicted

    @property
    def tier(self) -> int:
        """The kind of failure: 0 a contradicted claim, 1 too little content, 2 malformed or irrelevant."""
        if not self.structured or not (self.score.supported or self.score.contradicted):
            return 2
        return 0 if self.score.contradicted else 1


@dataclass(frozen=True)
class Pairs:
    """The pairs, with a summary of the candidates.

    Attributes:
        rows: the pairs, in the order of the questions; see `PairMaker`.
        questions: number of questions.
        candidates: number of answers.
        left_out: reason -> number of answers in no pair.
        largest_margin: between an answer that can be chosen and another one of its question, of any length.
    """

    rows: list[Record]
    questions: int
    candidates: int
    left_out: Counter[str]
    largest_margin: float

    def __str__(self) -> str:
        """A summary of a few lines."""
        count = len(self.rows)
        lines = [f"{count:,} pairs from {self.candidates:,} answers to {self.questions:,} questions."]
        if count:
            margin = sum(row["margin"] for row in self.rows) / count
            grounded = sum(row["provenance"]["chosen"]["grounded"] for row in self.rows) / count
            mistakes = sum(bool(row["evidence"]["contradicted"]) for row in self.rows) / count
            chosen, rejected = (
                sum(len(row[name][0]["content"].split()) for row in self.rows) / count
                for name in ("chosen", "rejected")
            )
            lines += [
                f"Mean margin {margin:.3f}; {mistakes:.0%} of the rejected answers are contradicted; {grounded:.0%} of "
                f"the chosen ones were given beside facts; words {chosen:.1f} (chosen), {rejected:.1f} (rejected)."
            ]
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in self.left_out.most_common())
        return "\n".join([*lines, f"Answers in no pair: {reasons or 'none'}."])


class PairMaker:
    """Forms preference pairs from candidates.

    A row of the result has `prompt` (chat messages, without facts even where the chosen answer was given beside
    some), `images`, `chosen` and `rejected` (one message each), `id` (the sample's; ``id/2`` of its second pair),
    `group`, `target`, `question`, `chosen_score`, `rejected_score`, `margin`, `evidence` (the claims that decide, each
    with its words, facts and citations: `contradicted` of the rejected answer, `supported` of the chosen one that the
    rejected lacks) and `provenance` of both (`grounded`, `facts`, `policy`, `sampling`).

    Args:
        scorer: judges the answers; None takes the ontology that comes with the package.
        margin: the least difference in score, in (0, 1].
        max_length_ratio: words of the longer answer over those of the shorter, at most.
        pairs_per_question: the most pairs of one question.
        omissions: also reject answers without a contradicted claim that say too little. This teaches to say more,
            mistakes included.
    """

    def __init__(
        self,
        scorer: KGScorer | None = None,
        margin: float = 0.15,
        max_length_ratio: float = 1.5,
        pairs_per_question: int = 1,
        omissions: bool = False,
    ) -> None:
        self.scorer = KGScorer() if scorer is None else scorer
        self.margin = margin
        self.max_length_ratio = max_length_ratio
        self.pairs_per_question = pairs_per_question
        self.omissions = omissions
        check_numbers(self, margin="(0, 1]", max_length_ratio="[1, inf)", pairs_per_question="[1, inf)")

    def __call__(self, records: Sequence[CandidateRecord]) -> Pairs:
        """The pairs of all questions, from records as `dermiq.kg.candidates` reads them.

        Raises:
            KnowledgeError: if there is no pair at all, with the options to change, or a target is not in the graph.
        """
        rows: list[Record] = []
        left_out: Counter[str] = Counter()
        largest = 0.0
        for record in records:
            judged = self._judge(record, left_out)
            pairs = self._pairs(judged, left_out)
            rows += [self._row(record, *pair, number) for number, pair in enumerate(pairs, start=1)]
            largest = max(largest, _largest_margin(judged))
        answers = sum(len(record["candidates"]) for record in records)
        pairs_of_all = Pairs(rows, len(records), answers, left_out, largest)
        if not rows:
            raise KnowledgeError(self._nothing(pairs_of_all))
        return pairs_of_all

    def _judge(self, record: CandidateRecord, left_out: Counter[str]) -> list[_Judged]:
        """The complete and distinct candidates of a question, with their scores."""
        candidates = record["candidates"]
        if not record["target"]:
            left_out[NO_TARGET] += len(candidates)
            return []
        sample = _sample(record)
        seen: set[tuple[str, ...]] = set()
        judged = []
        for place, candidate in enumerate(candidates):
            words = _normal(candidate["completion"])
            if not candidate.get("finished", True):
                left_out[CUT_OFF] += 1
            elif words in seen:
                left_out[REPEATED] += 1
            else:
                seen.add(words)
                answer = parse(candidate["completion"])
                score = self._score(answer, sample)
                structured = (answer.well_formed and score.diagnosed) or not record["asks_diagnosis"]
                judged.append(_Judged(candidate, answer, score, words, place, structured))
        return judged

    def _score(self, answer: Answer, sample: Sample) -> KGScore:
        try:
            self.scorer.graph.find(sample.target)
        except KnowledgeError as error:
            raise KnowledgeError(f"sample {sample.id!r}: {error} Or add it with an ontology of your own.") from error
        judged = self.scorer.judge(answer, sample)
        assert judged is not None
        return judged

    def _pairs(self, judged: Sequence[_Judged], left_out: Counter[str]) -> list[tuple[_Judged, _Judged]]:
        """The pairs of one question."""
        obstacles: dict[int, str] = {item.place: NONE_FIT for item in judged}
        used: set[int] = set()
        pairs: list[tuple[_Judged, _Judged]] = []
        for chosen in sorted((item for item in judged if item.fit), key=_merit):
            free: list[_Judged] = []
            for other in judged:
                obstacle = self._obstacle(chosen, other) if other is not chosen else ""
                for item in (chosen, other):
                    obstacles[item.place] = max(obstacles[item.place], obstacle, key=_REASONS.index)
                if obstacle == NOT_NEEDED and not used & {chosen.place, other.place}:
                    free.append(other)
            if free and len(pairs) < self.pairs_per_question:
                rejected = min(free, key=_implausibility)
                used |= {chosen.place, rejected.place}
                pairs.append((chosen, rejected))
        left_out.update(obstacles[item.place] for item in judged if item.place not in used)
        return pairs

    def _obstacle(self, chosen: _Judged, other: _Judged) -> str:
        """The reason why two answers make no pair; `NOT_NEEDED` if they do."""
        if chosen.score.score - other.score.score < self.margin:
            return BELOW_MARGIN
        shorter, longer = sorted((chosen.words, other.words), key=len)
        if len(longer) > self.max_length_ratio * len(shorter):
            return OTHER_LENGTH
        if not (self.omissions or other.score.contradicted):
            return NO_MISTAKE
        if longer[: len(shorter)] == shorter or not any(_deciding(chosen, other)):
            return TRIVIAL
        return NOT_NEEDED

    def _row(self, record: CandidateRecord, chosen: _Judged, rejected: _Judged, number: int) -> Record:
        contradicted, supported = _deciding(chosen, rejected)
        scores = round(chosen.score.score, 4), round(rejected.score.score, 4)
        return {
            "prompt": record["messages"],
            "images": record["images"],
            "chosen": [{"role": "assistant", "content": chosen.answer.text}],
            "rejected": [{"role": "assistant", "content": rejected.answer.text}],
            "id": record["id"] if number == 1 else f"{record['id']}/{number}",
            "group": record["group"],
            "target": record["target"],
            "question": record["question"],
            "chosen_score": scores[0],
            "rejected_score": scores[1],
            "margin": round(scores[0] - scores[1], 4),
            "evidence": {
                "contradicted": self._evidence(rejected, "contradicted", contradicted),
                "supported": self._evidence(chosen, "supported", supported),
            },
            "provenance": {
                name: {
                    "grounded": item.candidate["grounded"],
                    "facts": item.candidate["facts"],
                    "policy": record.get("policy"),
                    "sampling": record.get("sampling"),
                }
                for name, item in (("chosen", chosen), ("rejected", rejected))
            },
        }

    def _evidence(self, item: _Judged, judgement: str, claims: Sequence[JudgedClaim]) -> list[Record]:
        """Claims as records, with their words in place of the spans."""
        text = spoken(item.answer)
        records = as_record(item.score, self.scorer.graph, text)[judgement]
        found = []
        for claim, record in zip(getattr(item.score, judgement), records, strict=True):
            if claim in claims:
                span = record.pop("span")
                found.append(record | {"words": text[slice(*span)] if span else ""})
        return found

    def _nothing(self, pairs: Pairs) -> str:
        what = f"{pairs.candidates:,} candidates of {pairs.questions:,} questions were scored and make no pair"
        if not pairs.candidates:
            return "There are no candidates, so there are no pairs. Sample some with `predict` first."
        if pairs.left_out[CUT_OFF] == pairs.candidates:
            return f"{what}: all are {CUT_OFF}. Raise sampling.max_new_tokens and sample again."
        reasons = ", ".join(f"{number:,} {reason}" for reason, number in pairs.left_out.most_common())
        return (
            f"{what}: the largest margin between an answer without contradiction and another is "
            f"{pairs.largest_margin:.3f}, the margin asked for {self.margin:g} ({reasons}). Lower the margin "
            "(python -m dermiq.kg pairs --margin forms pairs again without sampling), or sample more different "
            "answers in a new directory: raise sampling.temperature or candidates."
        )


def _sample(record: CandidateRecord) -> Sample:
    """The sample of a record, as the scorer gets it in every evaluation."""
    default = record["asks_diagnosis"] and record["question"] == QUESTION
    asked = "" if default else record["question"]
    return Sample(record["id"], tuple(record["images"]), record["target"], "", record["group"], asked)


def _normal(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without white space and punctuation."""
    return tuple(re.findall(r"\w+", text.lower()))


def _deciding(chosen: _Judged, rejected: _Judged) -> tuple[list[JudgedClaim], list[JudgedClaim]]:
    """Contradicted claims of the rejected answer, and supported ones of the chosen that the rejected lacks."""
    also = {item.claim.statement for item in rejected.score.supported}
    return list(rejected.score.contradicted), [
        item for item in chosen.score.supported if item.claim.statement not in also
    ]


def _merit(item: _Judged) -> tuple[float, bool, int]:
    """Sort key of answers to choose, the best first."""
    return (-item.score.score, item.candidate["grounded"], item.place)


def _implausibility(item: _Judged) -> tuple[int, bool, float, float, int]:
    """Sort key of answers to reject, the most instructive first."""
    likely = item.candidate.get("confidence", 0.0)
    return (item.tier, item.candidate["grounded"], -likely, -item.score.score, item.place)


def _largest_margin(judged: Sequence[_Judged]) -> float:
    scores = [item.score.score for item in judged]
    return max((item.score.score for item in judged if item.fit), default=0.0) - min(scores, default=0.0)
