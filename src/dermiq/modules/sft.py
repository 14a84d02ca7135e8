"""Supervised fine-tuning: the warm start, and later the conversation stage."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dermiq.metrics import EvaluationOutput
from dermiq.modules.base import StageModule
from dermiq.objectives.losses import sft_loss
from dermiq.policy.batches import ConversationBatch, PromptBatch
from dermiq.policy.packing import can_pack, check_packing, packed_logprobs
from dermiq.policy.prefix import sequence_logprobs


class SFTModule(StageModule):
    """Cross-entropy on the assistant's tokens of every turn; what the user says and shows gives no loss.

    Automatic optimisation: accumulate with ``--trainer.accumulate_grad_batches``. Where validation or test data hold
    replies, the loss on all their turns is logged as ``val/loss`` or ``test/loss``, a mean over tokens.

    Args:
        packing: run the conversations of a batch as one row, each seeing itself alone, so that nothing is computed for
            padding (`dermiq.policy.packing`); gradients are the same. ``train/padding`` is the share of the padded
            batch that is padding. Where a model cannot (eager attention, recurrent layers) the padded batch runs.
        stage: arguments of `StageModule`.
    """

    def __init__(self, *args: Any, packing: bool = True, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.packing = packing
        self._checked = False

    def training_step(self, batch: ConversationBatch, batch_idx: int) -> Tensor | None:
        """One forward pass over whole conversations; no loss for a batch without readable images.

        In the first step, make sure that packing changes nothing.
        """
        checked, self._checked = self._checked, True
        if not batch["samples"]:
            return self.no_loss()
        conversation, mask = batch["conversation"], batch["loss_mask"]
        if self._packs and not checked:
            check_packing(self.backbone, conversation, mask)
        loss, stats = self._loss(conversation, mask)
        self.check_finite(loss, batch["samples"])
        self.log("train/loss", loss, prog_bar=True, batch_size=len(mask))
        self.log("train/perplexity", stats["perplexity"], batch_size=len(mask))
        self.log("train/padding", 1 - conversation["attention_mask"].float().mean(), batch_size=len(mask))
        return loss * self.world_scale(mask.sum())

    def validation_step(self, batch: PromptBatch, batch_idx: int) -> EvaluationOutput:
        """Judge a batch, and add its replies to the held-out loss."""
        self._log_held_out("val/loss", batch)
        return super().validation_step(batch, batch_idx)

    def test_step(self, batch: PromptBatch, batch_idx: int) -> EvaluationOutput:
        """Judge a batch, and add its replies to the held-out loss."""
        self._log_held_out("test/loss", batch)
        return super().test_step(batch, batch_idx)

    @property
    def _packs(self) -> bool:
        return self.packing and can_pack(self.backbone)

    def _loss(self, conversation: dict[str, Tensor], mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        logprobs = packed_logprobs if self._packs else sequence_logprobs
        return sft_loss(logprobs(self.backbone, conversation, mask), mask)

    def _log_held_out(self, name: str, batch: PromptBatch) -> None:
        if "loss_mask" in batch:
            loss, _ = self._loss(batch["conversation"], batch["loss_mask"])
            # Lightning weights a mean by the batch size: every token counts alike.
            self.log(name, loss, on_epoch=True, sync_dist=True, batch_size=int(batch["loss_mask"].sum()))
