"""Retrieval-augmented prompts at inference (KG-RAG): the policy names a condition, and answers with its facts.

The label is never used: what is retrieved are facts of the condition that the policy itself names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from torch import Tensor

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.hub import context_length
from dermiq.policy.processing import encode_prompts
from dermiq.policy.rollout import Sampling, sample_rollout
from dermiq.prompts import normalise, question, to_messages, with_facts
from dermiq.schema import KnowledgeError, ModelError, Sample


class Passage(Protocol):
    """A retrieved fact."""

    @property
    def sentence(self) -> str:
        """The fact in words."""

    @property
    def citation(self) -> str:
        """The work that states it."""


class FactRetriever(Protocol):
    """A retriever of the facts that answer a question, such as `dermiq.kg.Retriever`."""

    def retrieve(self, question: str, conditions: Sequence[str]) -> Any:
        """Retrieved `Passage`s, the best first.

        Args:
            question: free text.
            conditions: names of the conditions whose facts are wanted.

        Raises:
            KnowledgeError: if it does not know one of them.
        """


class Grounded(NamedTuple):
    """Prompts with retrieved facts.

    Attributes:
        prompt: as `encode_prompts` makes it, on the batch's device; B rows.
        facts: of each row, those in its prompt.
        conditions: of each row, the condition whose facts they are; empty if the retriever knows none.
    """

    prompt: dict[str, Tensor]
    facts: list[list[Passage]]
    conditions: list[str]


def diagnose(backbone: VLMBackbone, batch: PromptBatch, max_new_tokens: int) -> list[str]:
    """The policy's own diagnosis for the images of each sample, by greedy decoding; empty if it names none.

    A sample that asks for the diagnosis keeps its prompt. A conversation is replaced by the default question about the
    same images; without images there is nothing to diagnose.

    Raises:
        ModelError: if that question does not fit into the model's context.
    """
    samples = batch["samples"]
    rows = [i for i, sample in enumerate(samples) if sample.images]
    if not rows:
        return [""] * len(samples)
    queried = batch
    if not all(sample.asks_diagnosis for sample in samples) or len(rows) < len(samples):
        with_images, images = [samples[i] for i in rows], [batch["images"][i] for i in rows]
        messages = [
            batch["messages"][i] if sample.asks_diagnosis else to_messages(_about_images(sample))
            for i, sample in zip(rows, with_images, strict=True)
        ]
        prompt = _encode(backbone, messages, images, batch)
        _refuse_overlong(backbone, prompt, with_images, max_new_tokens)
        queried = {"samples": with_images, "prompt": prompt, "messages": messages, "images": images}
    rollout = sample_rollout(backbone, queried, Sampling(max_new_tokens, temperature=0.0))
    named = dict(zip(rows, rollout.answers, strict=True))
    return [normalise(named[i][0].diagnosis or "") if i in named else "" for i in range(len(samples))]


def ground(
    backbone: VLMBackbone, batch: PromptBatch, retriever: FactRetriever, conditions: Sequence[str], max_new_tokens: int
) -> Grounded:
    """Prompts with the facts of one condition for each sample.

    The sentences go into the prompt, their citations do not. Facts that do not fit into the model's context beside
    the prompt and `max_new_tokens` are left out, the last first.

    Args:
        backbone: a loaded backbone.
        batch: the prompts.
        retriever: where the facts come from.
        conditions: the name of one condition for each sample, or "". A name that the retriever does not know counts as
            ""; then the facts are those of conditions that the question itself names, if any.
        max_new_tokens: reserved for the completion.
    """
    retrieved = [
        _retrieve(retriever, question(sample), condition)
        for sample, condition in zip(batch["samples"], conditions, strict=True)
    ]
    facts, known = [found for found, _ in retrieved], [condition for _, condition in retrieved]
    context = context_length(backbone.vlm.config)
    while any(facts):
        sentences = [[fact.sentence for fact in row] for row in facts]
        messages = [with_facts(row, texts) for row, texts in zip(batch["messages"], sentences, strict=True)]
        prompt = _encode(backbone, messages, batch["images"], batch)
        needed = (prompt["attention_mask"].sum(dim=1) + max_new_tokens).tolist()
        overlong = [i for i, row in enumerate(facts) if row and needed[i] > context]
        if not overlong:
            return Grounded(prompt, facts, known)
        facts = [row[:-1] if i in overlong else row for i, row in enumerate(facts)]
    return Grounded(batch["prompt"], facts, known)


def _about_images(sample: Sample) -> Sample:
    """A sample of the default question about the same images, without its label."""
    return Sample(id=sample.id, images=sample.images, target="", label="", group=sample.group)


def _retrieve(retriever: FactRetriever, query: str, condition: str) -> tuple[list[Passage], str]:
    """The facts, and the condition if the retriever knows it."""
    if condition:
        try:
            return list(retriever.retrieve(query, [condition])), condition
        except KnowledgeError:  # it does not know the condition; a graph that cannot be read raises again
            pass
    return list(retriever.retrieve(query, [])), ""


def _encode(
    backbone: VLMBackbone, messages: Sequence[list[dict[str, Any]]], images: Sequence[list[Any]], batch: PromptBatch
) -> dict[str, Tensor]:
    """Model inputs of conversations on the batch's device."""
    device = batch["prompt"]["input_ids"].device
    return {name: value.to(device) for name, value in encode_prompts(backbone.processor, messages, images).items()}


def _refuse_overlong(
    backbone: VLMBackbone, prompt: Mapping[str, Tensor], samples: Sequence[Sample], max_new_tokens: int
) -> None:
    context = context_length(backbone.vlm.config)
    for sample, length in zip(samples, prompt["attention_mask"].sum(dim=1).tolist(), strict=True):
        if length + max_new_tokens > context:
            raise ModelError(
                f"sample {sample.id!r}: to ground its answer the policy is first asked for the diagnosis, and that "
                f"prompt of {length} tokens with {max_new_tokens} more does not fit into the {context} tokens of "
                f"context of {backbone.model_id}. Lower eval_sampling.max_new_tokens, or do without a retriever."
            )
