"""The score of an answer about a condition: precision, coverage and harm of its claims, by the knowledge graph.

S is the summed weight of the supported claims about the condition that bear on the question, C that of the contradicted
claims, A of the supported ones about other conditions; a hedged claim weighs half:

    precision = S / (S + C + max(0, A - S))                   0 without a claim
    coverage  = min(1, (weight of the must-have facts that were stated) / needed)
    harm      = 1 - product over contradicted claims of (1 - severity)
    score     = (1 - harm) * 2 * precision * coverage / (precision + coverage)

Must-have facts are those that are always or typically so, of the relations that the question asks for; a fact that is
possibly so counts half. `needed` is 4 (8 without a question type, then with at most two facts a relation), or as many
as there are. Against gaming the score:

* a claim counts once, however often it is made, and unknown claims count nothing;
* true claims about other conditions cost where they are more than those about the case: an encyclopaedia is no answer;
* an answer tag that asserts no diagnosis, where one is asked for, caps the score;
* a sentence that holds a contradicted claim earns no support, so that a wrong sentence never helps;
* a hedged claim of malignancy, contagion, urgency or diagnosis supports nothing, and hedged claims together cover at
  most half of what is needed, and of what a relation may count;
* lists of terms, questions, and what follows an "if" make no claim (`dermiq.kg.language.claims`);
* support is counted in the first 400 words only, contradiction everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import inf
from pathlib import Path
from typing import NamedTuple

from dermiq.kg.closed_world import NEGLECT
from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.language.extraction import Reader
from dermiq.kg.language.reading import ClaimReader
from dermiq.kg.ontology.loading import load_graph
from dermiq.kg.questions import question_types, relations_of
from dermiq.kg.readers.language_model import LanguageModelReader
from dermiq.kg.relations import RELATIONS
from dermiq.kg.verdicts import Judge, Verdict
from dermiq.schema import Answer, Sample

MAX_WORDS = 400
UNDIAGNOSED = 0.25  # the most that an answer without the diagnosis asked for may score
NEEDED, NEEDED_OVERALL, PER_RELATION = 4, 8, 2
_ORDER_OF_URGENCY = ("self_care", "routine", "urgent", "emergency")
_SEVERITY = {
    "diagnosis": 0.5,
    "malignancy": 0.3,
    "urgency": 0.1,
    "contagious": 0.3,
    "contraindicated": 0.6,
    "contraindicated_in": 0.6,
    "insufficient_alone": 0.3,
    "quantity": 0.2,
    "first_line": 0.4,
    "agent": 0.2,
}
_OTHER_SEVERITY = 0.1
_UNDERRATED_MALIGNANCY = 0.8
_UNDERTRIAGE_PER_STEP = 0.3
_EXCLUSIVE = frozenset({DIAGNOSIS, *(name for name, relation in RELATIONS.items() if relation.functional)})


class JudgedClaim(NamedTuple):
    """A claim, the verdict on it, and how much harm believing it could do (0 to 1)."""

    claim: Claim
    verdict: Verdict
    severity: float = 0.0


@dataclass(frozen=True, slots=True)
class KGScore:
    """The score of one answer, all numbers in [0, 1].

    Attributes:
        score: the formula's result.
        precision: share of supported among supported and contradicted claims, 0 without any.
        coverage: how much of what the question needs was stated.
        harm: of the contradicted claims together.
        supported: claims that facts support.
        contradicted: claims that facts contradict.
        unknown: claims that the graph neither supports nor contradicts.
        unread: first and last character (exclusive) of each part of the answer that could not be read.
    """

    score: float
    precision: float
    coverage: float
    harm: float
    supported: tuple[JudgedClaim, ...]
    contradicted: tuple[JudgedClaim, ...]
    unknown: tuple[JudgedClaim, ...]
    unread: tuple[tuple[int, int], ...] = ()

    @property
    def claims(self) -> tuple[JudgedClaim, ...]:
        """All of them: supported, contradicted, unknown."""
        return (*self.supported, *self.contradicted, *self.unknown)

    @property
    def verdict(self) -> str:
        """``contradicted`` if a claim is, else ``supported`` if one is, else ``neutral``."""
        return "contradicted" if self.contradicted else "supported" if self.supported else "neutral"

    @property
    def diagnosed(self) -> bool:
        """True if the answer asserts a diagnosis, right or wrong."""
        return any(item.claim.relation == DIAGNOSIS and item.claim.positive for item in self.claims)

    @property
    def contradiction_rate(self) -> float:
        """Share of contradicted among all claims, 0 without any."""
        return len(self.contradicted) / len(self.claims) if self.claims else 0.0


class KGScorer:
    """Scores answers; as a reward, a function of (answer, sample) in [0, 1].

    Args:
        ontology: an OWL file in place of the one that comes with the package.
        merge: OWL files to merge on top of it.
        reader: reads the claims with a language model; None with the rules of `dermiq.kg.language`.
    """

    def __init__(
        self,
        ontology: Path | None = None,
        merge: list[Path] | None = None,
        reader: LanguageModelReader | None = None,
    ) -> None:
        self.ontology = ontology
        self.merge = tuple(merge or ())
        self.reader = reader

    @property
    def graph(self) -> KnowledgeGraph:
        """The knowledge graph, loaded on first use."""
        return self._by_graph.graph

    @property
    def _by_graph(self) -> _GraphScorer:
        return _graph_scorer(self.ontology, self.merge, self.reader)

    def __call__(self, answer: Answer, sample: Sample) -> float | None:
        """The score of a completion: its reasoning and its diagnosis; None where `judge` gives none."""
        judged = self.judge(answer, sample)
        return judged.score if judged else None

    def judge(self, answer: Answer, sample: Sample) -> KGScore | None:
        """The whole score of a completion, with its claims; None if its sample is about no condition of the graph."""
        case = sample.concepts[0] if sample.concepts else self._condition(sample)
        if case is None:
            return None
        asked = question_types(sample.question)
        judged = self._by_graph.recent(spoken(answer), case, asked[0] if asked else None)
        if sample.asks_diagnosis and answer.diagnosis is not None and not judged.diagnosed:
            judged = replace(judged, score=min(judged.score, UNDIAGNOSED))
        return judged

    def score(self, answer: str, condition: str, question_type: str | None = None) -> KGScore:
        """The score of an answer about a condition.

        Args:
            answer: free text.
            condition: its name, a synonym or an xref.
            question_type: a key of `dermiq.kg.questions.QUESTION_TYPES`; None asks for everything.

        Raises:
            KnowledgeError: if the graph has no such condition, or there is no such type of question.
        """
        return self._by_graph.score(answer, condition, question_type)

    def _condition(self, sample: Sample) -> str | None:
        found = self.graph.lookup(sample.target) if sample.target else None
        return found.id if found else None


class _GraphScorer:
    """The formula on one graph, shared by all `KGScorer`s of the same files, with what it has computed before."""

    def __init__(self, ontology: Path | None, merge: tuple[Path, ...], reader: LanguageModelReader | None) -> None:
        self.graph = load_graph(ontology, merge)
        self.recent = lru_cache(maxsize=2**11)(self.score)  # several reward terms ask for the same score
        self._reader: Reader = reader.on(self.graph) if reader else ClaimReader(self.graph)
        self._judge = Judge(self.graph)
        self._weights: dict[tuple[str, tuple[str, ...]], float] = {}

    def score(self, answer: str, condition: str, question_type: str | None) -> KGScore:
        """See `KGScorer.score`."""
        case = self.graph.find(condition).id
        relations = relations_of(question_type)
        claims, unread = self._reader.read(answer, case)
        judged, refuted = self._judged(claims, case)
        supported, contradicted, unknown = judged["supported"], judged["contradicted"], judged["unknown"]
        counted = [item for item in supported if self._counts(item, case, relations, refuted)]
        aside = [item for item in supported if not self.graph.related(item.claim.subject, case)]
        gained, lost = _weight(counted), _weight(contradicted)
        lost += max(0.0, _weight(aside) - gained)
        precision = gained / (gained + lost) if gained else 0.0
        coverage = self._coverage(counted, case, relations, question_type is None)
        safety = 1.0
        for item in contradicted:
            safety *= 1.0 - item.severity
        mean = 2 * precision * coverage / (precision + coverage) if precision and coverage else 0.0
        return KGScore(
            safety * mean,
            precision,
            coverage,
            1.0 - safety,
            tuple(supported),
            tuple(contradicted),
            tuple(unknown),
            tuple(unread),
        )

    def _judged(self, claims: Sequence[Claim], case: str) -> tuple[dict[str, list[JudgedClaim]], set[int]]:
        """The distinct claims by judgement, and the numbers of the sentences with a contradicted one.

        Of claims that say the same, one of a sentence without contradiction comes before others, a plain one before
        a hedged one.
        """
        verdicts = [self._judge(claim, case) for claim in claims]
        refuted = {c.sentence for c, v in zip(claims, verdicts, strict=True) if v.judgement == "contradicted"}
        ranked = sorted(
            zip(claims, verdicts, strict=True), key=lambda judged: (judged[0].sentence in refuted, judged[0].hedged)
        )
        sorted_out: dict[str, list[JudgedClaim]] = {"supported": [], "contradicted": [], "unknown": []}
        seen = set()
        for claim, verdict in ranked:
            statement = claim.statement
            if statement not in seen:
                seen.add(statement)
                wrong = verdict.judgement == "contradicted"
                severity = self._severity(claim, verdict, case) if wrong else 0.0
                sorted_out[verdict.judgement].append(JudgedClaim(claim, verdict, severity))
        return sorted_out, refuted

    def _counts(self, item: JudgedClaim, case: str, relations: tuple[str, ...], refuted: set[int]) -> bool:
        claim, relation = item.claim, item.verdict.relation
        return (
            claim.subject == case
            and relation in relations
            and claim.sentence not in refuted
            and claim.words[1] <= MAX_WORDS
            and not (claim.hedged and relation in _EXCLUSIVE)
            and not claim.telegraphic
        )

    def _coverage(self, counted: Iterable[JudgedClaim], case: str, relations: tuple[str, ...], overall: bool) -> float:
        plain: dict[tuple[str, str], float] = {}
        hedged: dict[tuple[str, str], float] = {}
        for item in counted:
            evidence = item.verdict.evidence
            if evidence:
                fact = evidence[0]
                key, possible = (fact.relation, fact.value), fact.strength == "possible"
            else:
                key, possible = (item.verdict.relation, item.claim.value), False
            stated = hedged if item.claim.hedged else plain
            stated[key] = max(0.5 if possible or item.claim.hedged else 1.0, stated.get(key, 0.0))
        needed = self._needed(case, relations, overall)
        reserved = {key: weight for key, weight in hedged.items() if key not in plain}
        cap = PER_RELATION if overall else inf
        return min(1.0, (_total(plain, cap) + min(_total(reserved, cap / 2), needed / 2)) / needed)

    def _needed(self, case: str, relations: tuple[str, ...], overall: bool) -> float:
        """The weight of the must-have facts that covers a question in full."""
        needed = self._weights.get((case, relations))
        if needed is None:
            must_have = [fact for name in relations for fact in self.graph.about(case, name) if _is_must(fact)]
            there = _total({(fact.relation, fact.value): 1.0 for fact in must_have}, PER_RELATION if overall else inf)
            needed = max(1.0, min(there, NEEDED_OVERALL if overall else NEEDED))
            self._weights[case, relations] = needed
        return needed

    def _severity(self, claim: Claim, verdict: Verdict, case: str) -> float:
        severity = _SEVERITY.get(verdict.relation, _OTHER_SEVERITY)
        if verdict.relation == "malignancy" and self._underrated(claim, verdict.evidence[0].value):
            severity = _UNDERRATED_MALIGNANCY
        elif verdict.rule == NEGLECT:
            severity = _UNDERRATED_MALIGNANCY
        elif verdict.relation == "urgency":
            steps = 1  # "it is not urgent"
            if claim.positive:
                steps = _ORDER_OF_URGENCY.index(verdict.evidence[0].value) - _ORDER_OF_URGENCY.index(claim.value)
            severity = max(severity, _UNDERTRIAGE_PER_STEP * steps)
        elif (
            verdict.relation == DIAGNOSIS
            and self._is_malignant(case)
            and not (claim.positive and self._is_malignant(claim.value))
        ):
            severity = _UNDERRATED_MALIGNANCY
        return severity / 2 if claim.hedged else severity

    @staticmethod
    def _underrated(claim: Claim, truth: str) -> bool:
        return truth != "benign" and (claim.value == "benign" if claim.positive else claim.value == truth)

    def _is_malignant(self, condition: str) -> bool:
        return any(fact.value == "malignant" for fact in self.graph.about(condition, "malignancy"))


_graph_scorer = lru_cache(maxsize=4)(_GraphScorer)


def spoken(answer: Answer) -> str:
    """A completion as prose: the reasoning, then the diagnosis as a sentence; a malformed one as it is."""
    if answer.diagnosis is None:
        return answer.text
    return f"{answer.think}\nThe diagnosis is {answer.diagnosis}."


def _weight(items: list[JudgedClaim]) -> float:
    return len(items) - 0.5 * sum([item.claim.hedged for item in items])


def _is_must(fact: Fact) -> bool:
    return fact.strength in ("always", "typical") and fact.positive


def _total(weights: Mapping[tuple[str, str], float], cap: float) -> float:
    """The sum of the weights of (relation, value), each relation's up to a cap."""
    sums: dict[str, float] = {}
    for (relation, _), weight in weights.items():
        sums[relation] = sums.get(relation, 0.0) + weight
    return sum(min(total, cap) for total in sums.values())
