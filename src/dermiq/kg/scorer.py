"""The score of an answer about a condition: precision, coverage and harm of its claims, by the knowledge graph.

S is the summed weight of the supported claims about the condition that bear on the question, C that of the
contradicted claims, A of the supported ones about other conditions, U of the unknown ones about the condition, X the
number of pairs of values that exclude each other; a hedged claim weighs half:

    precision = S / (S + C + X + max(0, A - S) + max(0, U - S / 2))          0 without a claim
    coverage  = the share of what the question needs that was stated         `dermiq.kg.coverage`
    harm      = 1 - product over contradicted claims of (1 - severity)
    score     = (1 - harm) * 2 * precision * coverage / (precision + coverage)

Against gaming the score:

* facts weigh by how few conditions share them, and the name of the condition is among what a question needs;
* a claim counts once, however often it is made;
* true claims about other conditions cost where they are more than those about the case: an encyclopaedia is no answer.
  So do unknown claims beyond half as many as the supported ones, and both of two values that exclude each other;
* an answer tag that asserts no diagnosis, where one is asked for, caps the score;
* a sentence that holds a contradicted claim earns no support, so that a wrong sentence never helps;
* a hedged claim of malignancy, contagion, urgency or diagnosis supports nothing, and hedged claims together cover at
  most half of what is needed, and of what a relation may count;
* lists of terms, questions, and what follows an "if" make no claim (`dermiq.kg.language.claims`);
* support is counted in the first 400 words only, contradiction everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from dermiq.kg.coverage import NAMING, Coverage, Stated
from dermiq.kg.graph import KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS
from dermiq.kg.language.extraction import Reader
from dermiq.kg.language.reading import ClaimReader
from dermiq.kg.linking import Linker, words
from dermiq.kg.ontology.loading import load_graph
from dermiq.kg.questions import question_types, relations_of
from dermiq.kg.readers.language_model import LanguageModelReader
from dermiq.kg.relations import RELATIONS
from dermiq.kg.rules import NOT_ALONE, Verdict
from dermiq.kg.severity import Severities
from dermiq.kg.verdicts import Judge
from dermiq.schema import Answer, Sample

MAX_WORDS = 400
GRANTED = 0.5  # unknown claims about the case that are free of cost, for each supported one
UNDIAGNOSED = 0.25  # the most that an answer without the diagnosis asked for may score
_EXCLUSIVE = frozenset({DIAGNOSIS, *(name for name, relation in RELATIONS.items() if relation.functional)})
_NAMED = Stated(DIAGNOSIS, "", NAMING, False)


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
        named: the condition was rightly named, by the answer or the question.
    """

    score: float
    precision: float
    coverage: float
    harm: float
    supported: tuple[JudgedClaim, ...]
    contradicted: tuple[JudgedClaim, ...]
    unknown: tuple[JudgedClaim, ...]
    unread: tuple[tuple[int, int], ...] = ()
    named: bool = False

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
        given = self._by_graph.is_named(case, sample.question)
        judged = self._by_graph.recent(spoken(answer), case, asked[0] if asked else None, given)
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
        self._coverage = Coverage(self.graph)
        self._severity = Severities(self.graph)
        self._names = Linker(self.graph.by_name.items())

    def is_named(self, case: str, question: str) -> bool:
        """True if a question names the case."""
        return any(concept == case for _, _, concept in self._names.link(words(question)))

    def score(self, answer: str, condition: str, question_type: str | None, given: bool = False) -> KGScore:
        """See `KGScorer.score`; `given`: the question names the condition."""
        case = self.graph.find(condition).id
        relations = relations_of(question_type)
        claims, unread = self._reader.read(answer, case)
        judged, refuted = self._judged(claims, case)
        supported, contradicted, unknown = judged["supported"], judged["contradicted"], judged["unknown"]
        counted = [item for item in supported if self._counts(item, case, relations, refuted)]
        aside = [item for item in supported if not self.graph.related(item.claim.subject, case)]
        unfounded = [item for item in unknown if item.claim.positive and item.claim.subject == case]
        gained, lost = _weight(counted), _weight(contradicted)
        lost += max(0.0, _weight(aside) - gained) + max(0.0, _weight(unfounded) - GRANTED * gained)
        lost += self._judge.excluding([item.claim for item in (*counted, *unfounded)])
        precision = gained / (gained + lost) if gained else 0.0
        names = [*self._diagnoses(supported, case, refuted), *_subjects(counted)]
        if given and counted:
            names.append(_NAMED)
        stated = [*names, *self._facts(counted)]
        coverage = self._coverage(stated, case, relations, question_type is None)
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
            bool(names),
        )

    def _judged(self, claims: Sequence[Claim], case: str) -> tuple[dict[str, list[JudgedClaim]], set[int]]:
        """The distinct claims by judgement, and the numbers of the sentences with a contradicted one.

        Of claims that say the same, one of a sentence without contradiction comes before others, a plain one before
        a hedged one.
        """
        verdicts = _beside_others(claims, [self._judge(claim, case) for claim in claims])
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
        """True for a supported claim that is about the case and bears on the question."""
        claim, relation = item.claim, item.verdict.relation
        return claim.subject == case and relation in relations and self._earns(claim, relation, refuted)

    @staticmethod
    def _earns(claim: Claim, relation: str, refuted: set[int]) -> bool:
        return (
            claim.sentence not in refuted
            and claim.words[1] <= MAX_WORDS
            and not (claim.hedged and relation in _EXCLUSIVE)
            and not claim.telegraphic
        )

    def _diagnoses(self, supported: Iterable[JudgedClaim], case: str, refuted: set[int]) -> Iterator[Stated]:
        """The right diagnoses, asked for or not."""
        for claim, verdict, _ in supported:
            if verdict.relation == DIAGNOSIS and self._earns(claim, verdict.relation, refuted):
                yield Stated(DIAGNOSIS, "", self._coverage.naming(claim.value, case), False)

    def _facts(self, counted: Iterable[JudgedClaim]) -> Iterator[Stated]:
        for claim, verdict, _ in counted:
            if verdict.evidence:
                yield Stated(verdict.relation, *self._coverage.weight(claim.value, verdict.evidence), claim.hedged)


_graph_scorer = lru_cache(maxsize=4)(_GraphScorer)


def spoken(answer: Answer) -> str:
    """A completion as prose: the reasoning, then the diagnosis as a sentence; a malformed one as it is."""
    if answer.diagnosis is None:
        return answer.text
    return f"{answer.think}\nThe diagnosis is {answer.diagnosis}."


def _beside_others(claims: Sequence[Claim], verdicts: list[Verdict]) -> list[Verdict]:
    """The verdicts, with nothing against a treatment that does not suffice alone where a right one is named too."""
    treated = {
        claim.subject
        for claim, verdict in zip(claims, verdicts, strict=True)
        if verdict.judgement == "supported" and verdict.relation in ("first_line", "second_line")
    }
    return [
        Verdict("unknown", claim.relation) if verdict.rule == NOT_ALONE and claim.subject in treated else verdict
        for claim, verdict in zip(claims, verdicts, strict=True)
    ]


def _subjects(counted: Iterable[JudgedClaim]) -> Iterator[Stated]:
    """The names of the case, as what claims that count are about."""
    return (_NAMED._replace(hedged=item.claim.hedged) for item in counted if item.claim.named)


def _weight(items: list[JudgedClaim]) -> float:
    return len(items) - 0.5 * sum([item.claim.hedged for item in items])
