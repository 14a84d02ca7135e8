"""Candidates for preference pairs: answers of the policy to the plain prompt, and to the prompt with facts."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from dermiq.files import Changes
from dermiq.metrics import EvaluationOutput
from dermiq.modules.base import StageModule
from dermiq.policy.batches import PromptBatch
from dermiq.policy.digests import policy_digest
from dermiq.policy.grounding import Passage, ground
from dermiq.policy.rollout import Decoder, Rollout, Sampling, sample_rollout
from dermiq.prompts import question
from dermiq.ranges import SEED, check_numbers
from dermiq.schema import Candidate, CandidateRecord, TrainingError


class CandidateOutput(EvaluationOutput):
    """What `CandidateModule.predict_step` returns: no rows of an evaluation.

    Attributes:
        records: one per question; none where the whole batch is done.
    """

    records: list[CandidateRecord]


class CandidateModule(StageModule):
    """Samples several answers to each question of ``predict``, of which `dermiq.trainer.preferences` forms pairs.

    With a `retriever` half of the answers (rounded down) are sampled from the prompt with facts about the sample's own
    target, which is known of training data; a target without facts leaves the prompt as it is.

    Args:
        candidates: answers to each question.
        sampling: how they are sampled; keep the temperature above 0.
        engine: samples them; its `rows_per_pass` bounds memory.
        seed: of the sampling.
        stage: arguments of `StageModule`.

    Attributes:
        done: ids of the samples whose candidates are on file; set by the callback that writes them.
    """

    def __init__(
        self,
        *args: Any,
        candidates: int = 8,
        sampling: Sampling = Sampling(),  # noqa: B008 (frozen)
        engine: Decoder | None = None,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        if sampling.temperature == 0:
            raise ValueError("candidates have to differ: sampling.temperature must be above 0")
        self.candidates = candidates
        self.sampling = sampling
        self.engine = Decoder() if engine is None else engine
        self.seed = seed
        self.done: Container[str] = frozenset()
        check_numbers(self, candidates="[2, 65536]", seed=SEED)  # a pair needs two

    def setup(self, stage: str) -> None:
        """Refuse to train.

        Raises:
            TrainingError: if the subcommand is fit.
        """
        if stage == "fit":
            self.training_step()

    def training_step(self, *_: Any) -> NoReturn:
        """Refuse to train.

        Raises:
            TrainingError: always.
        """
        raise TrainingError(
            "CandidateModule samples candidates for preference pairs and trains nothing: run it with `predict`. "
            "DPOModule learns from the pairs."
        )

    @property
    def policy(self) -> dict[str, Any]:
        """The policy that answers: model, adapter directory, and a hash of the adapter's present weights."""
        return {
            "model_id": self.backbone.model_id,
            "adapter": self.backbone.adapter_path,
            "weights": policy_digest(self.backbone),
        }

    @property
    def settings(self) -> dict[str, Any]:
        """Everything beside the policy that decides which answers are sampled, ready for JSON."""
        retriever = None
        if self.retriever is not None:
            kind, state = type(self.retriever), self.retriever.__getstate__()
            retriever = {"class": f"{kind.__module__}.{kind.__qualname__}"} | (state if isinstance(state, dict) else {})
        return {
            "sampling": asdict(self.sampling),
            "candidates": self.candidates,
            "seed": self.seed,
            "retriever": retriever,
        }

    def predict_step(self, batch: PromptBatch, batch_idx: int) -> CandidateOutput:
        """Sample the candidates of a batch."""
        samples = batch["samples"]
        if all(sample.id in self.done for sample in samples):
            return {"rows": [], "records": []}
        nothing: list[list[Passage]] = [[] for _ in samples]
        with_facts = 0 if self.retriever is None else self.candidates // 2
        sampled = [self._sample(batch, nothing, self.candidates - with_facts, "plain")]
        if self.retriever is not None and with_facts:
            targets = [sample.target for sample in samples]
            grounded = ground(self.backbone, batch, self.retriever, targets, self.sampling.max_new_tokens)
            beside_facts: PromptBatch = {**batch, "prompt": grounded.prompt}
            sampled.append(self._sample(beside_facts, grounded.facts, with_facts, "grounded"))
        return {"rows": [], "records": [_record(batch, i, sampled) for i in range(len(samples))]}

    def _sample(
        self, batch: PromptBatch, facts: Sequence[Sequence[Passage]], count: int, stream: str
    ) -> list[list[Candidate]]:
        """[B][count] candidates from one kind of prompt."""
        seed = f"{self.seed}/{stream}"
        rollout = sample_rollout(self.backbone, batch, self.sampling, count, seed, self.engine)
        finished = _finished(rollout, self.backbone.stop_ids, self.sampling.max_new_tokens)
        return [
            [
                {
                    "completion": answer.text,
                    "grounded": bool(facts[i]),
                    "facts": [fact.sentence for fact in facts[i]],
                    "length": int(rollout.lengths[i, j]),
                    "finished": bool(finished[i, j]),
                    "confidence": round(float(rollout.confidence[i, j]), 6),
                }
                for j, answer in enumerate(group)
            ]
            for i, group in enumerate(rollout.answers)
        ]


def _record(batch: PromptBatch, i: int, sampled: Sequence[list[list[Candidate]]]) -> CandidateRecord:
    sample = batch["samples"][i]
    return {
        "id": sample.id,
        "group": sample.group,
        "target": sample.target,
        "asks_diagnosis": sample.structured,
        "question": question(sample),
        "messages": batch["messages"][i],
        "images": list(sample.images),
        "candidates": [candidate for part in sampled for candidate in part[i]],
    }


def _finished(rollout: Rollout, stops: Sequence[int], limit: int) -> Tensor:
    """[B, G] bool, completions that end with a stop token or below the length limit."""
    last = rollout.ids.gather(1, rollout.mask.sum(-1, keepdim=True) - 1)
    closed = torch.isin(last, torch.tensor(stops, device=last.device)).view(len(rollout.samples), -1)
    return closed | (rollout.lengths < limit)


def other_policy(path: Path, changes: Changes) -> TrainingError:
    """The refusal of a file of answers that was begun with another policy or other settings."""
    changed = "; ".join(f"{name} was {before}, is {now}" for name, (before, now) in changes.items())
    return TrainingError(
        f"{path} was written by another policy or with other settings: {changed}. Go back to those, or use a new "
        "--trainer.default_root_dir."
    )
