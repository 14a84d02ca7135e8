"""Rows of predictions: the columns of a question, of the answer to it, and of how that was judged."""

from __future__ import annotations

from typing import NotRequired, TypedDict


class Overlap(TypedDict, total=False):
    """How far an open answer of visual question answering has the target's tokens, in [0, 1].

    Attributes:
        token_precision: share of the answer's tokens that the target has.
        token_recall: share of the target's tokens that the answer has.
        token_f1: harmonic mean of both.
        rouge_l: F1 of the longest common subsequence.
    """

    token_precision: float
    token_recall: float
    token_f1: float
    rouge_l: float


class Verdict(Overlap):
    """How an answer was judged (`dermiq.metrics.Judge.judge`).

    Attributes:
        named: the target if it is named, else the concept's name or the text, empty if the structure is broken; None in
            conversation.
        correct: None in conversation.
        concepts: identifiers that are right to name.
        named_lineage: of the concept that is named, the most specific first.
        malignant: of the label; None where unknown. Of diagnoses with a terminology, like the next two.
        named_malignant: of what is named; None where unknown.
        hierarchical_f1: overlap of the ancestors of what is named and of what is right.
        position: of choices, the letter of the right option.
        position_chosen: the letter that was chosen; None if none was.
        closed: of visual question answering, True for questions of yes or no; the others have an `Overlap`.
        findings_true: where the findings of a lesion are known, how many attributes are stated rightly.
        findings_stated: how many are stated.
    """

    named: str | None
    named_lineage: list[str]
    concepts: list[str]
    correct: bool | None
    malignant: NotRequired[bool | None]
    named_malignant: NotRequired[bool | None]
    hierarchical_f1: NotRequired[float | None]
    position: NotRequired[str]
    position_chosen: NotRequired[str | None]
    closed: NotRequired[bool]
    findings_true: NotRequired[int]
    findings_stated: NotRequired[int]


class Vote(TypedDict, total=False):
    """What several answers to one question agree on (`dermiq.metrics.Judge.vote`).

    Attributes:
        majority: as `Verdict.named`, of the name with the most votes; empty without votes.
        majority_lineage: as `Verdict.named_lineage`.
        confidence: share of the answers that named the majority.
        ranking: what was named, the most frequent first.
        votes: for each name of the ranking.
        target_rank: place of the first right name in the ranking, from 1; None without a vote for one.
    """

    majority: str
    majority_lineage: list[str]
    confidence: float
    ranking: list[str]
    votes: list[int]
    target_rank: int | None


class CitedFact(TypedDict):
    """A fact that stood in a prompt.

    Attributes:
        sentence: the fact in words.
        citation: the work in which it can be looked up.
    """

    sentence: str
    citation: str


class AnsweredQuestion(TypedDict):
    """A question and the judged answer to it.

    Attributes:
        id: of the sample, like all down to `site`.
        dataset: whose sample it is.
        group: what intervals resample: patient, else lesion.
        kind: of the question; ``conversation`` where the sample has a reply.
        images: paths.
        question: as it was asked.
        options: of choices.
        label: as the source writes it.
        target: what to answer.
        skin_type: None where unknown.
        site: of the body; empty where unknown.
        completion: the text that the policy sampled.
        answer: what stands between its answer tags; None if the structure is broken.
        reward: total.
        completion_length: in tokens.
        reasoning_length: in words.
        scores: reward term -> value, of those that apply.
    """

    id: str
    dataset: str
    group: str
    kind: str
    images: list[str]
    question: str
    options: list[str]
    label: str
    target: str
    skin_type: str | None
    site: str
    completion: str
    answer: str | None
    reward: float
    completion_length: int
    reasoning_length: int
    scores: dict[str, float]


class PredictionRow(AnsweredQuestion, Verdict, Vote):
    """One question of an evaluation; a line of ``predictions.jsonl``, a row of ``predictions.parquet``.

    The table has null where a column does not apply, and in place of `scores` and `sampled` a column for each of their
    names: ``reward/NAME``, ``sampled_NAME``.

    Attributes:
        sampled: reward, lengths, terms and `accuracy` -> mean over the `eval_samples` further answers, of which the
            columns of `Vote` are too (none in conversation).
        facts: those that stood in the prompt, with a retriever.
        grounded_on: the condition that they are about; None if there is none.
    """

    sampled: NotRequired[dict[str, float]]
    facts: NotRequired[list[CitedFact]]
    grounded_on: NotRequired[str | None]


class EvaluationOutput(TypedDict):
    """What `validation_step`, `test_step` and `predict_step` return to callbacks.

    Attributes:
        rows: one per sample of the batch.
    """

    rows: list[PredictionRow]
