"""One GRPO step on a GPU by two paths: a prompt that its completions share, and a copy of it for each of them.

The duplicated path is what trainers do that know nothing of groups: every completion carries its own copy of prompt
and image, through transformers' `generate` in the rollout and through full forward passes in the update. Its log-probs
are made by the product's own kernel, so that the paths differ in nothing but the copies.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from gpu.meter import Meter
from gpu.shapes import Shape, build_prompt
from torch import Tensor

from dermiq.objectives.losses import constant_length, policy_loss
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.prefix import Prefix, prefill, score, sequence_logprobs
from dermiq.policy.rollout import Decoder, Rollout, Sampling, sample_rollout
from dermiq.schema import Sample

SAMPLE = Sample(id="lesion", images=("lesion.png",), target="melanoma", label="mel", group="lesion")

Inputs = dict[str, Tensor]


@dataclass
class Bench:
    """A policy and one prompt [1, P] on a device, and what both paths do with them.

    Attributes:
        policy: in training mode, with fixed-length completions.
        shape: of policy and prompt.
        meter: of the device.
        mixed: compute in bfloat16 by autocast, as Lightning's `bf16-mixed` does.
        tokens_per_pass: tokens of a micro-batch of the update.
    """

    policy: VLMBackbone
    shape: Shape
    meter: Meter
    mixed: bool
    tokens_per_pass: int
    prompt: Inputs = field(init=False)
    optimizer: torch.optim.Optimizer = field(init=False)

    def __post_init__(self) -> None:
        self.prompt = build_prompt(self.shape, self.meter.device)
        self.optimizer = torch.optim.AdamW(self.policy.trainable_parameters(), lr=1e-6)

    def autocast(self) -> AbstractContextManager[Any]:
        """Lightning's own settings."""
        return (
            torch.autocast(self.meter.device.type, dtype=torch.bfloat16, cache_enabled=False)
            if self.mixed
            else nullcontext()
        )

    def batch(self) -> dict[str, Any]:
        """A batch that was not seen before, so that nothing remembers its image."""
        return {"prompt": {name: value.clone() for name, value in self.prompt.items()}, "samples": [SAMPLE]}

    def copies(self, count: int) -> Inputs:
        """Prompt and image `count` times, as a processor would make them of `count` equal conversations."""
        return {name: value.repeat(count, *[1] * (value.ndim - 1)) for name, value in self.prompt.items()}

    def rollout_shared(
        self, group_size: int, new_tokens: int, batch: dict[str, Any] | None = None, prefix: Prefix | None = None
    ) -> Rollout:
        """The product's own sampling."""
        batch = self.batch() if batch is None else batch
        with self.autocast():
            rollout = sample_rollout(
                self.policy, batch, Sampling(new_tokens), group_size, engine=Decoder(), prefix=prefix
            )
        assert rollout.ids.shape == (group_size, new_tokens)
        return rollout

    def rollout_duplicated(self, group_size: int, new_tokens: int, do_sample: bool = True) -> Tensor:
        """Ids [G, T] of transformers' `generate` with its default cache; their texts are made too."""
        with self.autocast(), self.policy.sampling_mode():
            output = self.policy.vlm.generate(
                **self.copies(group_size), do_sample=do_sample, top_k=0 if do_sample else None,
                suppress_tokens=self.policy.banned.nonzero().flatten().tolist(),
                min_new_tokens=new_tokens, max_new_tokens=new_tokens,
            )  # fmt: skip
            ids = output[:, self.shape.prompt_tokens :]
            self.policy.decode(ids, torch.ones_like(ids, dtype=torch.bool))
        assert ids.shape == (group_size, new_tokens)
        self.policy.vlm.model.rope_deltas = None
        return ids

    def step_shared(self, group_size: int, new_tokens: int, kl: bool = False) -> None:
        """A GRPO++ step as the product's module takes it: one prefill serves rollout and update."""
        batch = self.batch()
        with self.autocast():
            prefix = prefill(self.policy, batch["prompt"]).detach()
        rollout = self.rollout_shared(group_size, new_tokens, batch, prefix)
        reference = self._reference(batch, rollout) if kl else None
        parts = (part.index for part in rollout.parts(self.tokens_per_pass))
        self._update_from(prefix, rollout.ids, rollout.mask, parts, rollout.logprobs, reference)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def update_shared(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """Gradients of the policy loss from one pass over the prompt; returns the log-probs [G, T]."""
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        with self.autocast():
            prefix = prefill(self.policy, self.batch()["prompt"]).detach()
        return self._update_from(prefix, ids, mask, self._parts(len(ids), ids.shape[1]))

    def update_duplicated(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        """The same gradients from full forward passes, one copy of prompt and image per row."""
        mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
        scored = []
        for part in self._parts(len(ids), self.shape.prompt_tokens + ids.shape[1]):
            inputs, wanted = self.conversations(ids[part], mask[part])
            with self.autocast():
                logprobs = sequence_logprobs(self.policy, inputs, wanted)[:, self.shape.prompt_tokens :]
                self._loss(logprobs, logprobs.detach(), mask, part).backward()
            scored.append(logprobs.detach())
        return torch.cat(scored)

    def conversations(self, ids: Tensor, mask: Tensor) -> tuple[Inputs, Tensor]:
        """Whole conversations of these completions, and the mask [N, P + T] of what they wrote."""
        inputs = self.copies(len(ids))
        behind = {"input_ids": ids, "attention_mask": mask.long(), "mm_token_type_ids": torch.zeros_like(ids).int()}
        wanted = torch.cat([torch.zeros_like(inputs["input_ids"], dtype=torch.bool), mask], dim=1)
        return {**inputs, **{name: torch.cat([inputs[name], new], dim=1) for name, new in behind.items()}}, wanted

    def fit_micro_batch(self, update: Callable[[Tensor], object], ids: Tensor, row_tokens: int) -> int:
        """Rows of the largest micro-batch, halved from `tokens_per_pass` down, with which an update of `ids` fits."""
        rows = min(len(ids), max(1, self.tokens_per_pass // row_tokens))
        while True:
            self.tokens_per_pass = rows * row_tokens
            try:
                update(ids)
                return rows
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
            rows //= 2
            self.policy.zero_grad(set_to_none=True)
            self.meter.clear()

    def _update_from(
        self,
        prefix: Prefix,
        ids: Tensor,
        mask: Tensor,
        parts: Iterable[Tensor],
        old: Tensor | None = None,
        reference: Tensor | None = None,
    ) -> Tensor:
        rows = torch.zeros(len(ids), dtype=torch.int64, device=ids.device)
        restricted = old is not None  # as the rollout was; the duplicated path knows no banned tokens
        scored = []
        with self.autocast():
            for part in parts:
                tokens = score(self.policy, prefix, rows[part], ids[part], mask[part], restricted=restricted)
                before = tokens.logprobs.detach() if old is None else old[part]
                of_reference = None if reference is None else reference[part]
                self._loss(tokens.logprobs, before, mask, part, of_reference).backward()
                scored.append(tokens.logprobs.detach())
            prefix.backward_through_prompt().backward()
        return torch.cat(scored)

    def _reference(self, batch: dict[str, Any], rollout: Rollout) -> Tensor:
        with self.autocast(), self.policy.sampling_mode(), self.policy.reference():
            prefix = prefill(self.policy, batch["prompt"])
            found = torch.zeros_like(rollout.logprobs)
            for part in rollout.parts(self.tokens_per_pass):
                part.put(score(self.policy, prefix, part.rows, part.ids, part.mask).logprobs, found)
        return found

    def _parts(self, rows: int, width: int) -> Sequence[Tensor]:
        """Rows of micro-batches of at most `tokens_per_pass` tokens."""
        return torch.arange(rows, device=self.meter.device).split(max(1, self.tokens_per_pass // width))

    def _loss(
        self, logprobs: Tensor, old: Tensor, mask: Tensor, part: Tensor, reference: Tensor | None = None
    ) -> Tensor:
        advantages = torch.linspace(-1.0, 1.0, len(mask), device=mask.device)[part]
        weights = constant_length(mask, mask.shape[1])[part]
        kl_coef = 0.0 if reference is None else 0.01
        loss, _ = policy_loss(logprobs, old, advantages, weights, ref_logprobs=reference, kl_coef=kl_coef)
        return loss
