"""DermIQ's side of the GRPO benchmark: `GRPOModule` within Lightning's `fit`, and where its time and memory go."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench_models import Case
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger
from measuring import forget_peak, resident
from torch.utils.data import DataLoader, Dataset

import dermiq.modules.grpo as grpo
from dermiq.modules import GRPOModule
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA
from dermiq.policy.rollout import Sampling
from dermiq.rewards import RewardMixture, RewardTerm
from dermiq.schema import Answer, Sample

RANK, RATE, MAX_NORM = 8, 1e-5, 1.0


def load_policy(directory: Path) -> VLMBackbone:
    """The policy with an adapter whose weights are all random: a new one's are half zero, and half its gradients."""
    torch.manual_seed(0)
    backbone = VLMBackbone(str(directory), LoRA(rank=RANK))
    backbone.load()
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(0.0, 0.1)
    return backbone


class Batches(Dataset[dict[str, Any]]):
    """The same prompt again and again, opened and encoded anew for each step, as the data module does."""

    def __init__(self, case: Case, new_tokens: int, count: int) -> None:
        self.case, self.new_tokens, self.count = case, new_tokens, count
        self.seconds: list[float] = []

    def __len__(self) -> int:
        """Number of steps."""
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Encode the prompt."""
        if index >= self.count:
            raise IndexError(index)
        start = time.perf_counter()
        batch = self.case.batch(self.new_tokens)
        self.seconds.append(time.perf_counter() - start)
        return batch


class Watch(Callback):
    """Seconds and peaks of memory of each step and of its parts.

    * `prefill`: the one pass over prompt and pictures, with gradient, that rollout and update share;
    * `rollout`: prefill and decoding, texts and parsing included;
    * `update`: from there on to the optimiser's step: rewards, advantages, scoring, backward through both;
    * `update_alone`: the update with the prefill, as if no rollout had needed it;
    * `step`: from the hook before a batch to the hook after it, optimiser and logging included.

    Attributes:
        steps: per step, seconds of each part.
        peaks: per step, MiB: `before` the step, and at the peak of `rollout` and of `update`.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.peaks: list[dict[str, float]] = []

    def on_train_batch_start(self, *_: Any) -> None:
        """Start the clock."""
        self.now = {"prefill": 0.0, "rollout": 0.0}
        self.peak = {"before": resident("VmRSS")}
        forget_peak()
        self.start = time.perf_counter()

    def on_before_optimizer_step(self, *_: Any) -> None:
        """The update is over."""
        self.now["update"] = time.perf_counter() - self.rolled_out
        self.now["update_alone"] = self.now["prefill"] + self.now["update"]
        self.peak["update"] = resident("VmHWM")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any) -> None:
        """Stop the clock."""
        self.now["step"] = time.perf_counter() - self.start
        self.steps.append(self.now)
        self.peaks.append(self.peak)
        assert outputs["rollout"].mask.all(), "a completion ended early"

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Time the parts of steps meanwhile."""
        prefill, sample_rollout = grpo.prefill, grpo.sample_rollout

        def timed_prefill(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            prefix = prefill(*args, **kwargs)
            self.now["prefill"] = time.perf_counter() - start
            self.now["rollout"] += self.now["prefill"]
            return prefix

        def timed_rollout(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            rollout = sample_rollout(*args, **kwargs)
            self.rolled_out = time.perf_counter()
            self.now["rollout"] += self.rolled_out - start
            self.peak["rollout"] = resident("VmHWM")
            forget_peak()
            return rollout

        grpo.prefill, grpo.sample_rollout = timed_prefill, timed_rollout
        try:
            yield
        finally:
            grpo.prefill, grpo.sample_rollout = prefill, sample_rollout


def fit(
    backbone: VLMBackbone, case: Case, group_size: int, new_tokens: int, tokens_per_pass: int, steps: int, folder: Path,
    after_step: Callable[[], None] = lambda: None,
) -> Watch:  # fmt: skip
    """Run `steps` steps on one prompt, and `after_step` after each of them, outside of what is timed.

    Every `step` includes the encoding of its batch, which a loader with workers would do meanwhile.
    """
    backbone.banned[list(backbone.stop_ids)] = True  # completions of a fixed length
    module = GRPOModule(
        backbone, RewardMixture({"diagnosis": RewardTerm(_reward)}), partial(torch.optim.AdamW, lr=RATE),
        max_grad_norm=MAX_NORM, group_size=group_size, sampling=Sampling(new_tokens), kl_coef=0.0,
        tokens_per_pass=tokens_per_pass,
    )  # fmt: skip
    watch, batches = Watch(), Batches(case, new_tokens, steps)
    turns = _AfterStep(after_step)
    trainer = Trainer(
        accelerator="cpu", max_epochs=1, limit_val_batches=0, logger=CSVLogger(folder), log_every_n_steps=1,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[watch, turns],
    )  # fmt: skip
    with watch.watching():
        trainer.fit(module, DataLoader(batches, batch_size=None))
    for step, data in zip(watch.steps, batches.seconds, strict=True):
        step |= {"data": data, "step_without_data": step["step"], "step": step["step"] + data}
    return watch


class _AfterStep(Callback):
    def __init__(self, run: Callable[[], None]) -> None:
        self.run = run

    def on_train_batch_end(self, *_: Any) -> None:
        self.run()


def _reward(answer: Answer, sample: Sample) -> float:
    """Different within a group, whatever was written: advantages of zero would be no test of an update."""
    return float(len(answer.text) % 2)
