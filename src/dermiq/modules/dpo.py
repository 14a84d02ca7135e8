"""Direct preference optimisation: the better of two replies becomes more likely, measured against a reference."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dermiq.modules.base import Batch, StageModule
from dermiq.modules.reference_cache import ReferenceCache, fingerprint, pair_keys
from dermiq.objectives.losses import dpo_sigmoid
from dermiq.policy.prefix import prefill, score
from dermiq.ranges import check_numbers
from dermiq.schema import PreferencePair, TrainingError


class DPOModule(StageModule):
    """DPO and its relatives: image and prompt run once per pair, both replies fork from them.

    Automatic optimisation: accumulate with ``--trainer.accumulate_grad_batches``. The reference is the backbone's:
    the frozen incoming adapter, or the base without adapters.

    Args:
        loss: (log-probs [2, B], those of the reference [2, B], weights [B], beta, label_smoothing) -> (scalar,
            statistics): `dermiq.objectives.losses.dpo_sigmoid`, `dpo_robust` or `dpo_ipo`.
        beta: how strongly the policy is held to the reference.
        label_smoothing: the probability that a pair is the wrong way round, in [0, 0.5).
        length_normalised: divide the log-probs of a completion by its number of tokens, as TRL's `ipo` and
            `sigmoid_norm` do; beta then counts per token, so take a larger one.
        full_margin: a pair weighs min(1, its margin / full_margin); None lets all pairs weigh 1.
        sft_coef: weight of the negative log-likelihood per token of the chosen reply (Pang et al. 2024,
            arXiv:2404.19733, eq. 1), which holds its probability up.
        reference_cache: a JSONL file that keeps the reference's log-probs, so that later epochs and runs do not
            compute them; it fills up as pairs come by.
        stage: arguments of `StageModule`.

    Raises:
        ValueError: if a number is out of range.
    """

    def __init__(
        self,
        *args: Any,
        loss: Callable[..., tuple[Tensor, dict[str, Tensor]]] = dpo_sigmoid,
        beta: float = 0.1,
        label_smoothing: float = 0.0,
        length_normalised: bool = False,
        full_margin: float | None = None,
        sft_coef: float = 0.0,
        reference_cache: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.loss = loss
        self.beta = beta
        self.label_smoothing = label_smoothing
        self.length_normalised = length_normalised
        self.full_margin = full_margin
        self.sft_coef = sft_coef
        self.reference_cache = reference_cache
        self._cache: ReferenceCache | None = None
        positive, share = "(0, inf)", "[0, 0.5)"
        check_numbers(self, beta=positive, label_smoothing=share, full_margin=positive, sft_coef="[0, inf)")

    def on_fit_start(self) -> None:
        """Open the cache; with several processes each has its own file.

        Raises:
            TrainingError: if another reference filled it.
        """
        super().on_fit_start()
        if self.reference_cache is not None:
            path = Path(self.reference_cache)
            if self.trainer.world_size > 1:
                path = path.with_suffix(f".rank{self.trainer.global_rank}{path.suffix}")
            self._cache = ReferenceCache(path, fingerprint(self.backbone, self.trainer.precision))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """One forward pass over prompts and both replies; no loss for a batch without readable images."""
        pairs = len(batch["samples"])
        if not pairs:
            return self.no_loss()
        loss, stats = self._loss(batch)
        self.check_finite(loss, batch["samples"])
        shown = {"train/loss": loss, "train/accuracy": stats.pop("accuracy")}
        self.log_dict(shown, prog_bar=True, batch_size=pairs)
        self.log_dict({f"train/{name}": value for name, value in stats.items()}, batch_size=pairs)
        return loss * self.share(torch.tensor(pairs, device=self.device))

    def _loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss, its statistics, and the mean log-probs per token.

        A chosen log-prob that falls together with the rejected one is the well-known way in which DPO fails.
        """
        ref_logprobs = self._reference_logprobs(batch)
        logprobs = self._logprobs(batch)
        lengths = batch["completion_mask"].sum(-1).view(2, -1)
        scale = lengths if self.length_normalised else 1
        weights = self._pair_weights(batch["samples"])
        loss, stats = self.loss(
            logprobs / scale, ref_logprobs / scale, weights, beta=self.beta, label_smoothing=self.label_smoothing
        )
        loss = loss - self.sft_coef * (weights * logprobs[0] / lengths[0]).sum()
        chosen, rejected = (logprobs.detach() / lengths).mean(dim=1)
        return loss, stats | {"chosen_logprob": chosen, "rejected_logprob": rejected}

    def _logprobs(self, batch: Batch) -> Tensor:
        """Log-probs of whole completions, [2, B] float32: chosen, then rejected."""
        prefix = prefill(self.backbone, batch["prompt"])
        ids, mask = batch["completion_ids"], batch["completion_mask"]
        rows = torch.arange(len(batch["samples"]), device=ids.device).repeat(2)
        logprobs = score(self.backbone, prefix, rows, ids, mask, restricted=False).logprobs
        return logprobs.sum(-1).view(2, -1)

    def _reference_logprobs(self, batch: Batch) -> Tensor:
        """The same of the reference, without gradient, from the cache where it has them."""
        if self._cache is None:
            return self._computed_reference(batch)
        keys = pair_keys(batch)
        if not self._cache.holds(keys):
            self._cache.add(keys, self._computed_reference(batch))
        return self._cache.logprobs(keys).to(self.device)

    def _computed_reference(self, batch: Batch) -> Tensor:
        with self.backbone.sampling_mode(), self.backbone.reference():
            logprobs = self._logprobs(batch)
        if not torch.isfinite(logprobs).all():
            raise TrainingError(
                "The reference's log-probs are not finite on the samples "
                f"{', '.join(sample.id for sample in batch['samples'])}: the weights that this run began with, or "
                "these images, are broken. Start from an adapter that works."
            )
        return logprobs

    def _pair_weights(self, samples: Sequence[PreferencePair]) -> Tensor:
        """[B] float32, 1 / B for pairs that count in full."""
        weights = [1.0] * len(samples)
        if self.full_margin is not None:
            for i, pair in enumerate(samples):
                if pair.margin is None:
                    raise TrainingError(
                        f"Pair {pair.id!r} has no margin, which full_margin asks for. Add a `margin` to every row of "
                        "the preference file, or set --model.full_margin=null."
                    )
                weights[i] = min(1.0, pair.margin / self.full_margin)
        return torch.tensor(weights, device=self.device, dtype=torch.float32) / len(samples)
