"""Attack benchmark of the judge: what earns a score without a look at the case, or hides a wrong claim.

The families are in ``attacks.yaml``. Beside them stand a greedy search, which composes a text that suits as many
conditions as it can out of a pool of sentences, and honest answers of 50 words about each condition.

    python benchmarks/kg/attacks.py --out benchmarks/results/kg_attacks.json

`--pool FILE` adds sentences for the search, one a line.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from pathlib import Path
from statistics import mean
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).parents[1]))
from measuring import publish

from dermiq.kg import Fact, KGScorer
from dermiq.kg.pairs import PairMaker
from dermiq.kg.questions import relations_of
from dermiq.kg.verbalising import named, sentences, written
from dermiq.prompts import QUESTION, parse
from dermiq.schema import Candidate, CandidateRecord, KnowledgeError, Sample

ANY = "psoriasis"
NAMES = (
    "psoriasis", "atopic dermatitis", "tinea corporis", "basal cell carcinoma", "melanoma", "seborrheic keratosis",
    "acne vulgaris", "rosacea", "urticaria", "scabies", "impetigo", "vitiligo", "lichen planus", "pityriasis rosea",
    "dermatofibroma", "actinic keratosis", "squamous cell carcinoma", "folliculitis", "cellulitis", "melasma",
)  # fmt: skip
HAM10000 = (
    "actinic keratosis", "basal cell carcinoma", "benign keratosis", "dermatofibroma", "melanoma",
    "melanocytic nevus", "vascular lesion",
)  # fmt: skip
QUESTIONS = (None, "diagnosis")
WORDS = 50
LONGEST = 20  # sentences that the search may take
SAMPLED = 48  # conditions that it looks at; the text that it finds is scored on all
DISGUISES: Mapping[str, Callable[[str], str]] = {
    "zero": lambda text: "\u200b".join(text),
    "soft": lambda text: re.sub(r"(\w\w)(\w)", "\\1\u00ad\\2", text),
    "cyrillic": lambda text: text.translate(str.maketrans("aeopcx", "\u0430\u0435\u043e\u0440\u0441\u0445")),
    "wide": lambda text: "".join(chr(ord(one) + 0xFEE0) if "!" <= one <= "~" else one for one in text),
    "accent": lambda text: text.translate(str.maketrans("aeiou", "àéíöú")),
    "spaced": lambda text: "  ".join(" ".join(word) for word in text.split()),
    "leet": lambda text: text.translate(str.maketrans("oei", "031")),
    "typo": lambda text: re.sub(r"(\w{5})(\w)(\w)", r"\1\3\2", text),
    "double": lambda text: re.sub(r"(\w{4})(\w)", r"\1\2\2", text),
    "broken": lambda text: re.sub(r"(\w{4})(\w{3})", "\\1-\n\\2", text),
    "upper": str.upper,
    "mixed": lambda text: "".join(one.upper() if place % 2 else one for place, one in enumerate(text)),
}


class Attacks:
    """The families of attacks, on every condition of a graph."""

    def __init__(self, scorer: KGScorer) -> None:
        self.scorer, self.graph = scorer, scorer.graph
        self.conditions = [concept.id for concept in self.graph.conditions]
        self.table: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "attacks.yaml").read_text())
        facts = " ".join(" ".join(self._about(name, 5)) for name in HAM10000)
        self._fixed = {"any": ANY, "names": ", ".join(NAMES), "facts": facts, "padding": "Lorem ipsum dolor. " * 150}

    def honest(self, condition: str) -> str:
        """An answer of about 50 words: the diagnosis, and facts of every kind that are always or typically so."""
        return " ".join([f"This is {written(self.graph.label(condition))}.", *self._about(condition)])

    def _about(self, name: str, count: int = 0) -> list[str]:
        """True sentences about a condition, sampled from its facts: `count` of them, or as many as make 50 words."""
        condition = self.graph.find(name).id
        chance = random.Random(condition)
        facts: dict[str, list[Fact]] = {}
        for relation in relations_of(None):
            for fact in self.graph.about(condition, relation):
                if fact.strength in ("always", "typical"):
                    facts.setdefault(relation, []).append(fact)
        taken: list[Fact] = []
        said: list[str] = []
        for relation in chance.sample(list(facts), len(facts)):
            taken += chance.sample(facts[relation], min(2, len(facts[relation])))
            said = sentences(self.graph, taken)
            if len(said) == count or (not count and len(" ".join(said).split()) >= WORDS):
                break
        return said

    def fill(self, text: str, condition: str = "") -> str:
        """A variant with its placeholders filled."""
        words = dict(self._fixed)
        if condition:
            name = named(self.graph.concepts[condition])
            words |= {"case": name, "C": name} | self.table["wrong"][self._wrong(condition)]

        def filled(match: re.Match[str]) -> str:
            name, _, disguise = match[1].partition(":")
            return DISGUISES[disguise](words[name]) if disguise else words[name]

        return re.sub(r"\{([\w:]+)\}", filled, text)

    def _wrong(self, condition: str) -> str:
        held = {fact.value for name in ("malignancy", "contagious") for fact in self.graph.about(condition, name)}
        if "malignant" in held:
            return "benign"
        return "non_contagious" if "contagious" in held else "contagious"

    def mean_score(self, text: str, question: str | None) -> float:
        """The mean score of one text over all conditions."""
        return mean(self.scorer.score(text, condition, question).score for condition in self.conditions)

    def blind(self) -> Iterator[tuple[str, str]]:
        """(Family, text) of each variant that looks at nothing."""
        for family, variants in self.table["blind"].items():
            for variant in variants:
                yield family, self.fill(variant)

    def tagged(self) -> dict[str, list[float]]:
        """Family -> mean score of each variant: a fixed text, with something between the answer tags."""
        fixed = self.fill(self.table["blind"]["fixed text"][0])
        scores: dict[str, list[float]] = {}
        for family, variants in self.table["tags"].items():
            for variant in variants:
                rewards = [
                    self.scorer(_completion(fixed, self.fill(variant, condition)), _sample(condition))
                    for condition in self.conditions
                ]
                scores.setdefault(family, []).append(mean(one or 0.0 for one in rewards))
        return scores

    def hidden(self) -> dict[str, list[float]]:
        """Family -> share of the conditions where a hidden wrong claim costs or is reported unread, by variant."""
        shares: dict[str, list[float]] = {}
        for family, variants in self.table["hidden"].items():
            for variant in variants:
                noticed = [self._noticed(condition, variant) for condition in self.conditions]
                shares.setdefault(family, []).append(mean(noticed))
        return shares

    def _noticed(self, condition: str, variant: str) -> bool:
        honest = self.honest(condition)
        before = self.scorer.score(honest, condition)
        after = self.scorer.score(f"{honest}\n{self.fill(variant, condition)}", condition)
        return after.score < before.score or bool(after.unread)

    def chosen(self, texts: Sequence[str]) -> int:
        """How many questions have one of some texts, without a diagnosis or with a fixed one, as a chosen answer."""
        maker = PairMaker(self.scorer)
        count = 0
        for condition in self.conditions:
            if condition in self.graph.ancestors[ANY] or self.graph.related(condition, ANY):
                continue
            for question in (QUESTION, "How is this treated?", "Is this contagious?", "What does it look like?"):
                record = _record(condition, question, [*_answers(texts, question), *_answers([_BAD], question)])
                try:
                    count += bool(maker([record]).rows)
                except KnowledgeError:
                    continue
        return count

    def greedy(self, pool: Sequence[str], question: str | None) -> tuple[str, float]:
        """The text that a greedy search composes of sentences, and its mean score over all conditions."""
        sampled = random.Random(0).sample(self.conditions, min(SAMPLED, len(self.conditions)))

        def score(*said: str) -> float:
            return mean(self.scorer.score(" ".join(said), at, question).score for at in sampled)

        taken: list[str] = []
        best = 0.0
        gains = dict.fromkeys(pool, inf)  # upper bounds, as a sentence seldom gains more beside more others
        while len(taken) < LONGEST and gains:
            fresh: set[str] = set()
            while (one := max(gains, key=gains.__getitem__)) not in fresh:
                gains[one] = score(*taken, one) - best
                fresh.add(one)
            if gains.pop(one) <= 0:
                break
            taken.append(one)
            best = score(*taken)
        text = " ".join(taken)
        return text, self.mean_score(text, question)

    def pool(self, size: int) -> list[str]:
        """Sentences for the search: those of the blind texts, and the facts that most conditions share, of an "it"."""
        shared = Counter(
            (fact.relation, fact.value) for fact in self.graph.facts if fact.positive and fact.relation in _SAYABLE
        )
        first = {(fact.relation, fact.value): fact for fact in reversed(self.graph.facts)}
        said = []
        for key, _ in shared.most_common(size):
            fact = first[key]
            (sentence,) = sentences(self.graph, [fact])
            name = written(self.graph.label(fact.subject))
            said.append(re.sub(re.escape(name), "it", sentence, count=1, flags=re.IGNORECASE))
        texts = [one for _, text in self.blind() for one in re.findall(r"[^.?!]+[.?!]", text)]
        return list(dict.fromkeys(one.strip()[0].upper() + one.strip()[1:] for one in [*texts, *said]))


_SAYABLE = frozenset(relations_of(None)) - {"diagnosis"}
_BAD = "It is malignant and contagious. It shows burrows. It is caused by a mite and a fungus. It is an emergency."


def _sample(condition: str, question: str = QUESTION) -> Sample:
    return Sample("1", (), condition, condition, "1", question)


def _completion(think: str, tag: str) -> Any:
    return parse(f"<think>{think}</think><answer>{tag}</answer>")


def _answers(texts: Sequence[str], question: str) -> list[str]:
    if question != QUESTION:
        return list(texts)
    return [f"<think>{text}</think><answer>{tag}</answer>" for text in texts for tag in ("a skin condition", ANY)]


def _record(condition: str, question: str, answers: Sequence[str]) -> CandidateRecord:
    candidates: list[Candidate] = [
        {"completion": answer, "grounded": False, "facts": [], "length": len(answer.split()), "finished": True}
        for answer in answers
    ]  # fmt: skip
    return {
        "id": condition, "group": condition, "target": condition, "asks_diagnosis": question == QUESTION,
        "question": question, "messages": [], "images": [], "candidates": candidates, "policy": {}, "sampling": {},
    }  # fmt: skip


def measure(attacks: Attacks, pool: Sequence[str]) -> dict[str, Any]:
    """The figures of every family, of the search and of honest answers."""
    blind: dict[str, list[float]] = {}
    texts = []
    for family, text in attacks.blind():
        texts.append(text)
        blind.setdefault(family, []).append(max(attacks.mean_score(text, question) for question in QUESTIONS))
    honest = {
        question or "any": mean(
            attacks.scorer.score(attacks.honest(one), one, question).score for one in attacks.conditions
        )
        for question in QUESTIONS
    }
    searched = {question or "any": attacks.greedy(pool, question) for question in QUESTIONS}
    best = {question: text for question, (text, _) in searched.items()}
    return {
        "conditions": len(attacks.conditions),
        "families": sum(len(attacks.table[name]) for name in ("blind", "tags", "hidden")),
        "variants": sum(len(one) for name in ("blind", "tags", "hidden") for one in attacks.table[name].values()),
        "honest": {name: round(value, 3) for name, value in honest.items()},
        "search": {name: round(value, 3) for name, (_, value) in searched.items()},
        "search text": best,
        "chosen": attacks.chosen([*texts, *best.values()]),
        "blind": {name: [round(max(values), 3), round(mean(values), 3)] for name, values in blind.items()},
        "tags": {name: [round(max(one), 3), round(mean(one), 3)] for name, one in attacks.tagged().items()},
        "hidden, noticed": {name: [round(min(one), 3), round(mean(one), 3)] for name, one in attacks.hidden().items()},
    }


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pool", type=Path, help="more sentences for the search, one a line")
    parser.add_argument("--size", type=int, default=150, help="facts in the pool of the search")
    parser.add_argument("--out", type=Path, help="write the result as JSON")
    options = parser.parse_args()
    attacks = Attacks(KGScorer())
    more = options.pool.read_text(encoding="utf-8").splitlines() if options.pool else []
    publish(measure(attacks, [*attacks.pool(options.size), *filter(None, more)]), options.out)


if __name__ == "__main__":
    main()
