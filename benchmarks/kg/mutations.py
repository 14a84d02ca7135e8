"""Mutation benchmark of the judge: true sentences against sentences with a single fact corrupted.

From every fact of every condition: gold sentences in several phrasings, and corruptions of exactly that fact. Rules
were tuned on ``phrasings/tuning_*.yaml``; figures are reported on ``phrasings/reporting.yaml``.

    python benchmarks/kg/mutations.py --out benchmarks/results/kg_mutations.json
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from dermiq.kg import KGScorer
from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.relations import RELATIONS

HERE = Path(__file__).parent
FUNCTIONAL = ("malignancy", "urgency", "contagious")
# Of a relation that is not closed, but about what is always, typically or never so: an explicit fact decides.
OPEN_DENIALS = ("negation inserted/open", "negation removed")
URGENCY = ("self_care", "routine", "urgent", "emergency")


@dataclass(frozen=True)
class Case:
    """A sentence about a condition.

    Attributes:
        kind: gold, or what was corrupted.
        value: the concept the sentence speaks of.
        expected: supported, contradicted or unknown.
    """

    kind: str
    condition: str
    value: str
    sentence: str
    expected: str


class Phrasings:
    """Sentences for facts, from templates written by hand: those of ``phrasings/<name>*.yaml`` together."""

    def __init__(self, name: str, graph: KnowledgeGraph, seed: int) -> None:
        self._templates: dict[str, Any] = {}
        for path in sorted((HERE / "phrasings").glob(f"{name}*.yaml")):
            for relation, templates in yaml.safe_load(path.read_text()).items():
                _extend(self._templates, relation, templates)
        self._graph = graph
        self._random = random.Random(seed)

    def __contains__(self, relation: str) -> bool:
        return relation in self._templates

    def say(self, condition: str, relation: str, value: str, affirmed: bool = True) -> str:
        """One sentence that affirms or denies a fact, its names sampled from the synonyms."""
        templates = self._templates[relation]
        if relation in FUNCTIONAL:
            template = self._random.choice(templates[self._graph.label(value)])
        else:
            template = self._random.choice(templates)["affirmed" if affirmed else "denied"]
        name = self._name(condition)
        capital = name[0].upper() + name[1:]
        return template.replace("{c}", name).replace("{C}", capital).replace("{v}", self._name(value))

    def _name(self, concept: str) -> str:
        one = self._graph.concepts[concept]
        verbal = one.id == "no_treatment"  # whose synonyms are no nouns: "leave it alone"
        return one.label if verbal else self._random.choice((one.label, one.label, *one.synonyms))


def _extend(known: dict[str, Any], relation: str, templates: Any) -> None:
    if isinstance(templates, dict):
        for value, sentences in templates.items():
            _extend(known.setdefault(relation, {}), value, sentences)
    else:
        known.setdefault(relation, []).extend(templates)


class Corruptor:
    """Gold sentences and corruptions of a graph's facts."""

    def __init__(self, graph: KnowledgeGraph, phrasings: Phrasings, seed: int) -> None:
        self._graph = graph
        self._say = phrasings.say
        self._phrased = phrasings
        self._random = random.Random(seed)
        self._of_kind: dict[str, list[str]] = defaultdict(list)
        for concept in graph.concepts.values():
            self._of_kind[concept.kind].append(concept.id)

    def cases(self) -> Iterator[Case]:
        """Every case of every fact that can be phrased."""
        for fact in self._graph.facts:
            if fact.relation in self._phrased:
                yield from self._of(fact)

    def _case(
        self, kind: str, fact: Fact, expected: str, value: str = "", relation: str = "", denied: bool = False
    ) -> Case:
        value = value or fact.value
        sentence = self._say(fact.subject, relation or fact.relation, value, affirmed=not denied)
        return Case(kind, fact.subject, value, sentence, expected)

    def _of(self, fact: Fact) -> Iterator[Case]:
        relation = fact.relation
        if relation in FUNCTIONAL:
            if fact.positive:
                yield self._case(f"gold/{relation}", fact, "supported")
                if fact.closed:  # otherwise books do not agree
                    yield from self._other_values(fact)
        elif relation == "contraindicated":
            if fact.positive:
                yield self._case("gold/contraindicated", fact, "supported")
                if self._decided(fact):
                    yield self._case("contraindicated treatment", fact, "contradicted", relation="first_line")
        elif not fact.positive:
            yield self._case("gold/denial", fact, "supported", denied=True)
            yield self._case("negation removed", fact, "contradicted")
        else:
            yield self._case(f"gold/{relation}", fact, "supported")
            expected = "contradicted" if self._sure(fact) else "unknown"
            kind = "negation inserted/" + ("closed" if fact.closed else "open")
            yield self._case(kind, fact, expected, denied=True)
            if relation != "absent_symptom" and (other := self._unrelated(fact)):
                kind, expected = ("closed", "contradicted") if fact.closed else ("open", "unknown")
                yield self._case(f"{kind} value swapped/{relation}", fact, expected, value=other)

    def _other_values(self, fact: Fact) -> Iterator[Case]:
        for other in self._of_kind[RELATIONS[fact.relation].range]:
            if other == fact.value:
                continue
            kind = f"{fact.relation} flipped"
            if fact.relation == "urgency":
                lower = URGENCY.index(other) < URGENCY.index(fact.value)
                kind = "urgency lowered" if lower else "urgency raised"
            yield self._case(kind, fact, "contradicted", value=other)

    def _decided(self, fact: Fact) -> bool:
        """The treatment is not, more or less specifically, recommended as well."""
        used = (*self._graph.about(fact.subject, "first_line"), *self._graph.about(fact.subject, "second_line"))
        return not any(other.positive and self._graph.related(other.value, fact.value) for other in used)

    def _sure(self, fact: Fact) -> bool:
        """The value, or something below it, is always or typically so."""
        return any(
            other.strength in ("always", "typical")
            and (other.value == fact.value or fact.value in self._graph.ancestors[other.value])
            for other in self._of_range(fact)
            if other.relation == fact.relation or RELATIONS[fact.relation].range == "factor"
        )

    def _of_range(self, fact: Fact) -> list[Fact]:
        """The facts of a condition whose values are of the same kind."""
        kind = RELATIONS[fact.relation].range
        return [
            other
            for relation, facts in self._graph.facts_of(fact.subject).items()
            for other in facts
            if RELATIONS[relation].range == kind
        ]

    def _unrelated(self, fact: Fact) -> str | None:
        """A value of the same kind that no fact of the condition comes near."""
        known = [other.value for other in self._of_range(fact)]
        pool = [
            value
            for value in self._of_kind[RELATIONS[fact.relation].range]
            if value != fact.subject and not any(self._graph.related(value, one) for one in known)
        ]
        return self._random.choice(pool) if pool else None


def judged(scorer: KGScorer, case: Case) -> str:
    """Contradicted if the scorer finds anything wrong, supported if it bears out what the sentence speaks of."""
    score = scorer.score(case.sentence, case.condition)
    if score.contradicted:
        return "contradicted"
    borne_out = any(
        scorer.graph.related(judged.claim.value, case.value)
        or judged.claim.subject == case.value
        or judged.verdict.relation in FUNCTIONAL
        for judged in score.supported
    )
    return "supported" if borne_out else "unknown"


def measure(scorer: KGScorer, cases: list[Case]) -> dict[str, Any]:
    """The matrix: kind of case and expectation -> how often each verdict."""
    matrix: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for case in cases:
        matrix[case.kind, case.expected][judged(scorer, case)] += 1
    rows = [
        {"kind": kind, "expected": expected, **{v: counts[v] for v in ("supported", "contradicted", "unknown")}}
        for (kind, expected), counts in sorted(matrix.items())
    ]
    gold = [row for row in rows if row["kind"].startswith("gold")]
    corrupted = [row for row in rows if not row["kind"].startswith("gold")]
    decidable = [row for row in corrupted if row["expected"] == "contradicted"]
    denials = [row for row in decidable if row["kind"] in OPEN_DENIALS]
    closed = [row for row in decidable if row["kind"] not in OPEN_DENIALS]
    undecided = [row for row in corrupted if row["expected"] == "unknown"]
    return {
        "gold_contradicted": share(gold, "contradicted"),
        "gold_supported": share(gold, "supported"),
        "closed_contradicted": share(closed, "contradicted"),
        "closed_supported": share(closed, "supported"),
        "denials_contradicted": share(denials, "contradicted"),
        "denials_supported": share(denials, "supported"),
        "undecided_unknown": share(undecided, "unknown"),
        "undecided_supported": share(undecided, "supported"),
        "rows": rows,
    }


def share(rows: list[dict[str, Any]], verdict: str) -> float:
    """Share of a verdict among the cases of some rows."""
    total = sum(row[v] for row in rows for v in ("supported", "contradicted", "unknown"))
    return round(sum(row[verdict] for row in rows) / total, 4) if total else 0.0


def main() -> None:
    """Run the benchmark and print the matrix."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phrasings", default="reporting", help="the files to use: reporting, or tuning")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    parser.add_argument("--show", metavar="KIND", help="print the misjudged sentences of kinds that contain this")
    options = parser.parse_args()
    scorer = KGScorer()
    phrasings = Phrasings(options.phrasings, scorer.graph, options.seed)
    cases = list(Corruptor(scorer.graph, phrasings, options.seed).cases())
    start = time.perf_counter()
    result = {"phrasings": options.phrasings, "seed": options.seed, "cases": len(cases)} | measure(scorer, cases)
    print(f"{len(cases)} sentences in {time.perf_counter() - start:.1f} s, phrasings: {options.phrasings}")
    print(f"{'':36}{'expected':>13}{'supported':>11}{'contradicted':>14}{'unknown':>9}")
    for row in result["rows"]:
        counts = f"{row['supported']:>11}{row['contradicted']:>14}{row['unknown']:>9}"
        print(f"{row['kind']:36}{row['expected']:>13}{counts}")
    for name, value in result.items():
        if isinstance(value, float):
            print(f"{name}: {value:.2%}")
    if options.show:
        for case in cases:
            if options.show in case.kind and (verdict := judged(scorer, case)) != case.expected:
                print(f"{case.kind} [{case.condition}] {verdict}: {case.sentence}")
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
