"""The judge of claims: by the facts of a graph, each is supported, contradicted or unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from dermiq.kg.closed_world import TREATED, ClosedWorld
from dermiq.kg.graph import Fact, KnowledgeGraph
from dermiq.kg.language.claims import Claim
from dermiq.kg.language.clauses import DIAGNOSIS, TREATMENT
from dermiq.kg.quantities import AGES, far_apart, parse_range
from dermiq.kg.relations import RELATIONS
from dermiq.kg.rules import NOT_ALONE, Judgement, Verdict

# Relations whose facts support a claim, and those whose facts contradict it.
_FOR = {
    TREATMENT: ("first_line", "second_line"),
    "cause": ("cause", "risk_factor", "trigger"),
    "morphology": ("morphology", "secondary_morphology"),
    "secondary_morphology": ("secondary_morphology", "morphology"),
}
_AGAINST = {
    TREATMENT: "contraindicated",
    "first_line": "contraindicated",
    "second_line": "contraindicated",
    "symptom": "absent_symptom",
    "test": "test_not_needed",
    "dermoscopy": "dermoscopy_against",
}
_BENIGN_TUMOUR = "benign_tumour"  # a category that implies a malignancy
_TAKEN_FOR_GRANTED = ("always", "typical")
_ORDER_OF_URGENCY = ("self_care", "routine", "urgent", "emergency")
_SCALES = {"urgency": _ORDER_OF_URGENCY, "malignancy": ("benign", "pre_malignant", "malignant")}


def _is_malignant(fact: Fact) -> bool:
    return fact.value == "malignant" and fact.positive


def _rules_out_contagion(fact: Fact) -> bool:
    return fact.positive and fact.value == "non_contagious"


class Judge:
    """Judges claims by a graph; verdicts are cached by statement."""

    def __init__(self, graph: KnowledgeGraph) -> None:
        self._graph = graph
        self._closed_world = ClosedWorld(graph)
        self._known: dict[tuple[object, ...], Verdict] = {}

    def __call__(self, claim: Claim, case: str) -> Verdict:
        """The verdict on a claim in an answer about a case, the identifier of a condition."""
        if claim.relation == DIAGNOSIS:
            return self._diagnosis(claim, case)
        key = claim.statement
        verdict = self._known.get(key)
        if verdict is None:
            verdict = self._judge(claim)
            if verdict.judgement == "unknown":
                verdict = self._by_members(claim) or verdict
            self._known[key] = verdict
        return verdict

    def excluding(self, claims: Sequence[Claim]) -> int:
        """How many pairs of values, said of one condition, exclude each other."""
        return self._closed_world.excluding(claims)

    def _by_members(self, claim: Claim) -> Verdict | None:
        """What holds, or fails, for every form of a condition, holds or fails for it."""
        forms = self._graph.forms.get(claim.subject, ())
        if len(forms) < 2:
            return None
        verdicts = [self(claim._replace(subject=form), form) for form in forms]
        if len({verdict.judgement for verdict in verdicts}) > 1 or verdicts[0].judgement == "unknown":
            return None
        evidence = tuple(fact for verdict in verdicts for fact in verdict.evidence)
        return Verdict(verdicts[0].judgement, verdicts[0].relation, evidence, "all members")

    def _judge(self, claim: Claim) -> Verdict:
        if claim.relation == "subtype_of":
            return self._subtype(claim)
        if claim.relation == "quantity":
            return self._quantity(claim)
        if claim.relation == "relieved_by":
            return self._relief(claim)
        if claim.relation == "differential":
            claim = self._as_held(claim)
        relations = _FOR.get(claim.relation, (claim.relation,))
        facts = [fact for name in relations for fact in self._graph.about(claim.subject, name)]
        against = [fact for fact in self._graph.about(claim.subject, _AGAINST.get(claim.relation, "")) if fact.positive]
        if RELATIONS[relations[0]].functional:
            rarely = claim.frequency == "rarely"
            return self._exclusive(claim._replace(positive=claim.positive != rarely, frequency=""), facts)
        if claim.frequency and (verdict := self._how_often(claim, facts)):
            return verdict
        if claim.positive and claim.frequency != "rarely":
            return self._affirmed(claim, facts, against)
        return self._denied(claim, facts, against)

    def _subtype(self, claim: Claim) -> Verdict:
        """The verdict on "X is a form of Y": wrong if it is none, and is of another category altogether."""
        if self._graph.related(claim.subject, claim.value):
            return Verdict("supported" if claim.positive else "unknown", "subtype_of", (), "diagnosis")
        one, other = (self._graph.about(name, "category") for name in (claim.subject, claim.value))
        apart = not any(self._graph.related(a.value, b.value) for a in one for b in other)
        if claim.positive and not claim.hedged and apart and any(fact.closed for fact in one):
            return Verdict("contradicted", "category", one, "other category")
        return Verdict("unknown", "subtype_of")

    def _diagnosis(self, claim: Claim, case: str) -> Verdict:
        """The verdict on a diagnosis: right if it is the case's condition, an ancestor or a descendant of it."""
        right = self._graph.related(claim.value, case)
        if claim.positive:
            return Verdict("supported" if right else "contradicted", DIAGNOSIS, (), DIAGNOSIS)
        denied = claim.value == case or claim.value in self._graph.ancestors[case]
        return Verdict("contradicted", DIAGNOSIS, (), DIAGNOSIS) if denied else Verdict("unknown", DIAGNOSIS)

    def _as_held(self, claim: Claim) -> Claim:
        """A claim of a differential, which is symmetric, in the direction that the graph has."""
        turned = claim._replace(subject=claim.value, value=claim.subject)
        for one in (claim, turned):
            if any(fact.value == one.value for fact in self._graph.about(one.subject, "differential")):
                return one
        return claim

    def _exclusive(self, claim: Claim, facts: list[Fact]) -> Verdict:
        """The verdict in a functional relation, whose values exclude each other."""
        held = tuple(fact for fact in facts if fact.positive)
        if denial := self._first(facts, lambda fact: not fact.positive and fact.value == claim.value):
            return self._decided(not claim.positive, (denial,), "denied rightly", "denied")
        if not held:
            return Verdict("unknown", claim.relation)
        if claim.conditional:
            return self._conditional(claim, held[0])
        if claim.value == "pre_malignant" and held[0].value == "benign" and self._may_turn_malignant(claim.subject):
            return Verdict("unknown", claim.relation)
        agrees = (held[0].value == claim.value) == claim.positive
        if not agrees and not held[0].closed and _is_contested(claim, held[0].value):
            return Verdict("unknown", claim.relation, (), "contested")
        return self._decided(agrees, held[:1], "stated", "other value")

    def _conditional(self, claim: Claim, held: Fact) -> Verdict:
        """Urgency in the presence of a further sign: more urgent than usual may be right, as much is."""
        steps = _ORDER_OF_URGENCY.index(claim.value) - _ORDER_OF_URGENCY.index(held.value)
        if steps == 0 and claim.positive:
            return Verdict("supported", "urgency", (held,), "stated")
        flags = tuple(fact for fact in self._graph.about(claim.subject, "red_flag") if fact.positive)
        if steps > 0 and claim.positive and flags:
            return Verdict("supported", "red_flag", flags, "with a sign")
        return Verdict("unknown", "urgency", (), "with a sign")

    def _may_turn_malignant(self, condition: str) -> bool:
        return any(
            fact.positive and any(map(_is_malignant, self._graph.about(fact.value, "malignancy")))
            for fact in self._graph.about(condition, "progresses_to")
        )

    @staticmethod
    def _decided(right: bool, evidence: tuple[Fact, ...], for_: str, against: str) -> Verdict:
        judgement: Judgement = "supported" if right else "contradicted"
        return Verdict(judgement, evidence[0].relation, evidence, for_ if right else against)

    def _how_often(self, claim: Claim, facts: list[Fact]) -> Verdict | None:
        """The verdict on how often something is said to be so; None where the plain claim decides."""
        fact = self._first(facts, lambda one: one.value == claim.value) or self._near(claim, facts)
        if fact is None or not claim.positive:
            if claim.frequency == "rarely" and claim.positive and self._closed_world.refute(claim):
                return Verdict("supported", claim.relation, (), "denied rightly")
            return None
        if claim.frequency == "rarely":
            return self._decided(fact.strength not in _TAKEN_FOR_GRANTED, (fact,), "how often", "how often")
        if fact.strength in ("rare", "never"):
            return Verdict("contradicted", fact.relation, (fact,), "how often")
        return None

    def _affirmed(self, claim: Claim, facts: list[Fact], against: list[Fact]) -> Verdict:
        value = claim.value
        malignancy = self._graph.about(claim.subject, "malignancy")
        if value == _BENIGN_TUMOUR and (held := self._first(malignancy, _is_malignant)):
            return Verdict("contradicted", "malignancy", (held,), "benign tumour")
        above = self._graph.ancestors[value]
        if exact := self._first(facts, lambda fact: fact.positive and fact.value == value):
            if exact.strength == "rare" and not claim.hedged:
                return Verdict("unknown", exact.relation, (), "how often")
            return Verdict("supported", exact.relation, (exact,), "stated")
        denials = [*(fact for fact in facts if not fact.positive), *against]
        denial = self._first(denials, lambda fact: fact.value == value) or self._first(
            denials, lambda fact: fact.value in above
        )
        if near := self._near(claim, facts):
            blunt = denial is not None and denial.value == value
            if not blunt:
                return Verdict("supported", near.relation, (near,), "below" if near.value not in above else "above")
        if not facts and (never_caught := self._never_caught(claim)):
            return Verdict("contradicted", "contagious", (never_caught,), "not contagious")
        if denial and (denial.relation != "absent_symptom" or denial.strength in _TAKEN_FOR_GRANTED):
            return Verdict("contradicted", denial.relation, (denial,), "denied")
        if lacking := self._insufficient(claim):
            return Verdict("contradicted", "insufficient_alone", (lacking,), NOT_ALONE)
        return self._closed(claim, facts)

    def _insufficient(self, claim: Claim) -> Fact | None:
        """The fact that a treatment does not suffice alone."""
        if claim.relation not in TREATED:
            return None
        known = (*self._graph.ancestors[claim.value], claim.value)
        return self._first(
            self._graph.about(claim.subject, "insufficient_alone"), lambda fact: fact.positive and fact.value in known
        )

    def _never_caught(self, claim: Claim) -> Fact | None:
        """The fact that a condition is not contagious, if a claim is about its transmission."""
        if claim.relation != "transmission":
            return None
        return self._first(self._graph.about(claim.subject, "contagious"), _rules_out_contagion)

    def _near(self, claim: Claim, facts: list[Fact]) -> Fact | None:
        """A positive fact about a descendant of the claim's value or, where facts inherit, an ancestor."""
        above = self._graph.ancestors[claim.value]
        held = [fact for fact in facts if fact.positive]
        return self._first(held, lambda fact: claim.value in self._graph.ancestors[fact.value]) or self._first(
            held, lambda fact: RELATIONS[fact.relation].inherits and fact.value in above
        )

    def _closed(self, claim: Claim, facts: list[Fact]) -> Verdict:
        """Contradicted by a complete list without anything akin, or by a rule of medicine; else unknown."""
        listed = tuple(fact for fact in facts if fact.relation == claim.relation and fact.closed and fact.positive)
        if listed and not any(self._graph.related(fact.value, claim.value) for fact in listed):
            return Verdict("contradicted", claim.relation, listed, "not on the list")
        if found := self._closed_world.refute(claim):
            rule, evidence = found
            return Verdict("contradicted", evidence[0].relation if evidence else claim.relation, evidence, rule)
        return Verdict("unknown", claim.relation)

    def _denied(self, claim: Claim, facts: list[Fact], against: list[Fact]) -> Verdict:
        value, above = claim.value, self._graph.ancestors[claim.value]
        for fact in facts:
            below = fact.value == value or value in self._graph.ancestors[fact.value]
            if below and fact.strength in _TAKEN_FOR_GRANTED:
                return Verdict("contradicted", fact.relation, (fact,), "taken for granted")
        denials = [*(fact for fact in facts if not fact.positive), *against]
        if denial := self._first(denials, lambda fact: fact.value == value or fact.value in above):
            return Verdict("supported", denial.relation, (denial,), "denied rightly")
        held = self._first(facts, lambda fact: fact.value == value and fact.positive and fact.strength != "rare")
        if held and claim.frequency == "always":
            return Verdict("contradicted", held.relation, (held,), "never")
        if not facts and (never_caught := self._never_caught(claim)):
            return Verdict("supported", "contagious", (never_caught,), "denied rightly")
        listed = tuple(fact for fact in facts if fact.relation == claim.relation and fact.closed and fact.positive)
        if listed and not any(self._graph.related(fact.value, value) for fact in facts):
            return Verdict("supported", claim.relation, listed, "denied rightly")
        if lacking := self._insufficient(claim):
            return Verdict("supported", "insufficient_alone", (lacking,), "denied rightly")
        if found := self._closed_world.refute(claim):
            return Verdict("supported", claim.relation, found[1], "denied rightly")
        return Verdict("unknown", claim.relation)

    def _relief(self, claim: Claim) -> Verdict:
        """The verdict on what is said to relieve a condition."""
        known = {claim.value, *self._graph.ancestors[claim.value]}
        relieving = self._first(
            self._graph.about(claim.subject, "relieved_by"), lambda fact: fact.positive and fact.value in known
        )
        if relieving:
            return self._decided(claim.positive, (relieving,), "stated", "taken for granted")
        causes = [fact for name in _FOR["cause"] for fact in self._graph.about(claim.subject, name)]
        cause = self._first(
            causes,
            lambda fact: fact.positive and (fact.value in known or claim.value in self._graph.ancestors[fact.value]),
        )
        if cause and claim.positive:
            return Verdict("contradicted", cause.relation, (cause,), "reversed")
        drug = self._closed_world.as_treatment(claim.value)
        return (
            self._judge(claim._replace(relation=TREATMENT, value=drug)) if drug else Verdict("unknown", "relieved_by")
        )

    def _quantity(self, claim: Claim) -> Verdict:
        """The verdict on a number: the range of the fact holds it, or is far from it."""
        said = claim.range
        held = [fact for fact in self._graph.about(claim.subject, "quantity") if fact.value == claim.value]
        ranges = [parse_range(fact.note) for fact in held]
        if not held and claim.value == "age_at_onset":
            held = [fact for fact in self._graph.about(claim.subject, "age_group") if fact.value in AGES]
            ranges = [AGES[fact.value] for fact in held if fact.positive]
        if not ranges or said is None:
            return Verdict("unknown", "quantity")
        if any(said.overlaps(one) for one in ranges):
            return Verdict("supported", "quantity", (held[0],), "in range")
        if all(far_apart(said, one) for one in ranges):
            return Verdict("contradicted", "quantity", (held[0],), "out of range")
        return Verdict("unknown", "quantity")

    @staticmethod
    def _first(facts: Iterable[Fact], holds: Callable[[Fact], bool]) -> Fact | None:
        return next((fact for fact in facts if holds(fact)), None)


def _is_contested(claim: Claim, held: str) -> bool:
    """True for a value next to the one that books do not agree on, and for a denial of that one."""
    order = _SCALES.get(claim.relation, (held, claim.value))
    return not claim.positive or abs(order.index(claim.value) - order.index(held)) == 1
