"""Rewards, advantages and callbacks that configurations of tests name."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from dermiq.advantages import Advantage, Graded
from dermiq.backbone import VLMBackbone
from dermiq.decoding import Completions, Sampling
from dermiq.prefix import Prefix, prefill, score
from dermiq.schema import Answer, Sample
from dermiq.text_encoder import TextEncoder


def letters(answer: Answer, sample: Sample) -> float:
    """Something that an untrained model earns by chance: differs between completions."""
    return min(len(set(answer.text)), 20) / 20


def raising(answer: Answer, sample: Sample) -> float:
    """A broken reward."""
    raise KeyError("no such concept")


def no_number(answer: Answer, sample: Sample) -> float:
    """Another broken reward."""
    return float("nan")


class Infinite(Advantage):
    """A broken advantage."""

    def __call__(self, graded: Graded) -> Tensor:
        return torch.full_like(graded.rewards, torch.inf)


class InterruptAt(Callback):
    """Ctrl-C while batch number `batch` (from 0) of the first epoch runs."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.current_epoch == 0 and batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGINT)


class WatchAdapter(Callback):
    """Refuses adapter weights or gradients that are not float32, or gradients that never come."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.seen: set[str] = set()
        self.start = {n: p.detach().clone() for n, p in self._trained(pl_module)}

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        for name, parameter in self._trained(pl_module):
            assert parameter.dtype == torch.float32, name
            assert parameter.grad is not None and parameter.grad.dtype == torch.float32, name
            if parameter.grad.abs().max() > 0:
                self.seen.add(name)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        now = dict(self._trained(pl_module))
        assert self.seen == now.keys() == self.start.keys()
        for name, parameter in now.items():
            assert parameter.dtype == torch.float32 and not torch.equal(parameter, self.start[name]), name

    def _trained(self, module: Any) -> list[tuple[str, Tensor]]:
        return [(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


class HalfByDefault(Callback):
    """Lets whatever a batch makes without saying its dtype be bfloat16, as Lightning does for ``bf16-true``."""

    def _half(self, *_: Any) -> None:
        torch.set_default_dtype(torch.bfloat16)

    def _single(self, *_: Any) -> None:
        torch.set_default_dtype(torch.float32)

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = on_predict_batch_start = _half
    on_train_batch_end = on_validation_batch_end = on_test_batch_end = on_predict_batch_end = on_exception = _single


class Recited:
    """An engine that draws nothing: a right answer, a wrong one and a broken one, over and over."""

    texts = (
        " <think> colour : brown . </think> <answer> melanoma </answer>",
        " <think> colour : black . </think> <answer> psoriasis </answer>",
        " <think> colour",
    )

    def complete(
        self,
        backbone: VLMBackbone,
        batch: Mapping[str, Any],
        sampling: Sampling,
        group_size: int,
        seed: str,
        prefix: Prefix | None = None,
    ) -> Completions:
        """The answers with the log-probs that the policy gives them."""
        prefix = prefill(backbone, batch["prompt"]) if prefix is None else prefix
        count = len(batch["samples"])
        end = backbone.processor.tokenizer.eos_token
        texts = [self.texts[place % len(self.texts)] + end for _ in range(count) for place in range(group_size)]
        rows = backbone.processor.tokenizer(texts, add_special_tokens=False)["input_ids"]
        mask = torch.arange(max(map(len, rows))) < torch.tensor([len(row) for row in rows])[:, None]
        tokens = torch.tensor([token for row in rows for token in row])
        ids = torch.zeros(mask.shape, dtype=torch.int64).masked_scatter(mask, tokens)
        prompts = torch.arange(count).repeat_interleave(group_size)
        return Completions(ids, mask, score(backbone, prefix, prompts, ids, mask, sampling.temperature).logprobs)


class Letters(TextEncoder):
    """How often each of some letters stands in a text."""

    def __call__(self, texts: Sequence[str]) -> Tensor:
        """[N, 5] float32."""
        return torch.tensor([[text.count(letter) for letter in "aeiou"] for text in texts], dtype=torch.float32)


def described(sample: Sample) -> str:
    """A reference for any sample."""
    return f"a {sample.target}"
