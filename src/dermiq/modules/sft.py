"""Supervised fine-tuning: the warm start, and later the conversation stage."""

from __future__ import annotations

import torch
from torch import Tensor

from dermiq.losses import sft_loss
from dermiq.modules.base import Batch, StageModule
from dermiq.prefix import prefill, score


class SFTModule(StageModule):
    """Cross-entropy on the assistant's tokens, prompts and images giving no loss.

    Automatic optimisation: accumulate with ``--trainer.accumulate_grad_batches``.
    """

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor | None:
        """One forward pass over prompts and target completions; None for a batch without readable images."""
        if not batch["samples"]:
            return None
        ids, mask = batch["completion_ids"], batch["completion_mask"]
        prefix = prefill(self.backbone, batch["prompt"])
        rows = torch.arange(len(ids), device=ids.device)
        loss, stats = sft_loss(score(self.backbone, prefix, rows, ids, mask, restricted=False).logprobs, mask)
        self.check_finite(loss, batch["samples"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(ids))
        self.log("train/perplexity", stats["perplexity"], batch_size=len(ids))
        return loss * self._share(mask.sum())

    def _share(self, tokens: Tensor) -> Tensor:
        """This process's tokens over the mean of all processes, so that every token of a step counts alike."""
        mean = self.trainer.strategy.reduce(tokens.float(), reduce_op="mean")
        return tokens / mean
