"""The judge of answers: what an answer names, whether that is right, and what several answers agree on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dermiq.findings import stated_truly
from dermiq.metrics.rows import Verdict, Vote
from dermiq.metrics.terminology import Terminology
from dermiq.metrics.text import is_closed, overlap, tokens, yes_or_no
from dermiq.prompts import LETTERS, accepted_names, chosen_option, normalise
from dermiq.schema import Answer, Sample

NO_ANSWER = ""
CONVERSATION = "conversation"


@dataclass(frozen=True)
class Name:
    """What an answer names, right or wrong.

    Attributes:
        text: the answer, normalised; the letter of the option that it chooses; empty if the structure is broken.
        concept: identifier of the condition of that name; None if there is none, or no condition was asked for.
    """

    text: str
    concept: str | None = None


class Judge:
    """Judges answers by what they mean.

    An answer to a diagnosis is right if it is an accepted name of the sample, or names one of the concepts that the
    sample's label can mean, or a form of one ("superficial spreading melanoma" where the label says "melanoma"). The
    reward `dermiq.rewards.diagnosis` is stricter: it teaches the very name. A broader name ("melanocytic nevus" where
    the label says "blue nevus") is wrong and earns a part of the hierarchical F1.

    An answer to a choice is right if it chooses the right option; to an open question of visual question answering, if
    it has the tokens of an accepted answer; to one whose answer is yes or no, if it says that word and not the other;
    to any other question, if it is an accepted name.

    Args:
        terminology: what names mean; without it they count as they stand, and there is neither hierarchy nor
            malignancy.
    """

    def __init__(self, terminology: Terminology | None = None) -> None:
        self.terminology = terminology

    def name(self, answer: Answer, sample: Sample) -> Name:
        """What an answer names."""
        if answer.diagnosis is None:
            return Name(NO_ANSWER)
        if sample.kind == "choice":
            place = chosen_option(answer, sample.options)
            return Name(normalise(answer.diagnosis) if place is None else LETTERS[place])
        if sample.kind == "vqa" and is_closed(sample.target):
            return Name(yes_or_no(answer.diagnosis) or normalise(answer.diagnosis))
        text = normalise(answer.diagnosis)
        return Name(text, self.terminology.concept(text) if self.terminology and sample.asks_diagnosis else None)

    def accepts(self, name: Name, sample: Sample) -> bool:
        """True if it is the right answer."""
        if sample.kind == "choice":
            return name.text == _right_letter(sample)
        if sample.kind == "vqa":
            return any(tokens(name.text) == tokens(accepted) for accepted in (sample.target, *sample.synonyms))
        if name.text in accepted_names(sample):
            return True
        return not set(self.concepts(sample)).isdisjoint(self.lineage(name))

    def concepts(self, sample: Sample) -> tuple[str, ...]:
        """The concepts that are right to name.

        Those of the sample, unless its target is none of them: then they are broader ones, and none is right.
        """
        own = self.terminology.concept(sample.target) if self.terminology else None
        if own is None:
            return ()
        return sample.concepts if own in sample.concepts else () if sample.concepts else (own,)

    def lineage(self, name: Name) -> list[str]:
        """The concept that is named and all that lies above it, the most specific first."""
        if self.terminology is None or name.concept is None:
            return []
        above = {concept: len(self.terminology.lineage(concept)) for concept in self.terminology.lineage(name.concept)}
        return sorted(above, key=lambda concept: (-above[concept], concept))

    def judge(self, answer: Answer, sample: Sample) -> Verdict:
        """The verdict on one answer: columns of its row."""
        row: Verdict = {"named": None, "named_lineage": [], "concepts": [], "correct": None}
        if sample.structured:
            name = self.name(answer, sample)
            right = self.accepts(name, sample)
            row |= {"named": self._class(name, sample), "correct": right}
            if sample.asks_diagnosis:
                self._add_meaning(row, name, right, sample)
            if sample.kind == "choice":
                place = chosen_option(answer, sample.options)
                chosen = None if place is None else LETTERS[place]
                row |= {"position": _right_letter(sample), "position_chosen": chosen}
            if sample.kind == "vqa":
                row["closed"] = is_closed(sample.target)
                if not row["closed"]:
                    row = {**row, **overlap(answer.diagnosis or "", sample.target)}
        if sample.findings_observed:
            true, stated = stated_truly(answer.think if sample.structured else answer.text, sample.findings)
            row |= {"findings_true": true, "findings_stated": stated}
        return row

    def vote(self, answers: Sequence[Answer], sample: Sample) -> Vote:
        """The vote of several answers to one question: concepts ranked by votes, ties by the first named.

        Malformed answers do not vote, but count in the share that the first has of all. The ranking never looks at the
        label.
        """
        names: dict[str, Name] = {}
        votes: dict[str, int] = {}
        for answer in answers:
            name = self.name(answer, sample)
            if name.text != NO_ANSWER:
                key = name.concept or name.text
                names.setdefault(key, name)
                votes[key] = votes.get(key, 0) + 1
        ranked = sorted(votes, key=lambda key: -votes[key])
        right = [place for place, key in enumerate(ranked, start=1) if self.accepts(names[key], sample)]
        return {
            "majority": self._class(names[ranked[0]], sample) if ranked else NO_ANSWER,
            "majority_lineage": self.lineage(names[ranked[0]]) if ranked else [],
            "confidence": votes[ranked[0]] / len(answers) if ranked else 0.0,
            "ranking": [self._class(names[key], sample) for key in ranked],
            "votes": [votes[key] for key in ranked],
            "target_rank": right[0] if right else None,
        }

    def _class(self, name: Name, sample: Sample) -> str:
        """The target if it is named, else the name of the concept, else the text."""
        if self.accepts(name, sample):
            return sample.target
        return normalise(self.terminology.names(name.concept)[0]) if self.terminology and name.concept else name.text

    def _add_meaning(self, row: Verdict, name: Name, right: bool, sample: Sample) -> None:
        """Add concepts and malignancy of label and answer, and how much of the label's lineage the answer has.

        The hierarchical F1 is that of the two sets of ancestors, the concepts themselves included (Kiritchenko,
        Matwin and Famili, "Functional annotation of genes using hierarchical text categorization", 2005), here of each
        sample; of several concepts that are right, of the nearest.
        """
        if self.terminology is None:
            return
        known, concepts, lineage = self.terminology, self.concepts(sample), self.lineage(name)
        truths = {known.malignant(concept) for concept in concepts or sample.concepts}
        malignant = truths.pop() if len(truths) == 1 else None
        above = [known.lineage(concept) for concept in concepts]
        if not concepts and sample.concepts:
            above = [frozenset([sample.target]).union(*map(known.lineage, sample.concepts))]
        f1 = max(
            (2 * len(each.intersection(lineage)) / (len(each) + len(lineage)) for each in above),
            default=None,
        )
        row |= {
            "concepts": list(concepts),
            "named_lineage": lineage,
            "malignant": malignant,
            "named_malignant": known.malignant(name.concept) if name.concept else malignant if right else None,
            "hierarchical_f1": 1.0 if f1 is not None and right and not name.concept else f1,
        }


def _right_letter(sample: Sample) -> str:
    place = chosen_option(Answer("", "", sample.target), sample.options)
    return normalise(sample.target) if place is None else LETTERS[place]
