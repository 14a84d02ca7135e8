"""Rewards, advantages, engines and callbacks that configurations of tests name by their dotted paths."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Sequence
from multiprocessing import active_children
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from dermiq.objectives.advantages import Advantage, Graded
from dermiq.objectives.losses import clipped_tokens
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import PromptBatch
from dermiq.policy.decoding import Decoder
from dermiq.policy.prefix import Prefix, prefill, score
from dermiq.policy.sampling import Completions, Sampling
from dermiq.schema import Answer, Sample
from dermiq.text_encoder import TextEncoder


def letters(answer: Answer, sample: Sample) -> float:
    """Something that an untrained model earns by chance: differs between completions."""
    return min(len(set(answer.text)), 20) / 20


def by_chance(answer: Answer, sample: Sample) -> float:
    """A diagnosis that an untrained model gets right about half of the time."""
    return float(sum(map(ord, answer.text)) % 2)


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


class Silent(Advantage):
    """Advantages of 0: a policy gradient of 0."""

    def __call__(self, graded: Graded) -> Tensor:
        return torch.zeros_like(graded.rewards)


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


class RecordingSGD(torch.optim.SGD):
    """SGD that leaves the weights alone, and keeps the gradient of every step."""

    def __init__(self, params: Any, lr: float = 0.0) -> None:
        super().__init__(params, lr=lr)
        self.steps: list[list[Tensor]] = []

    def step(self, closure: Any = None) -> Any:
        result = super().step(closure)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        self.steps.append([torch.zeros_like(each) if each.grad is None else each.grad.clone() for each in weights])
        return result


class SignalAt(Callback):
    """Sends signals in a hook, once in a run, at batch number `batch` where the hook has one.

    Args:
        number: the signal.
        hook: the hook's name.
        batch: when.
        times: how many signals.
        main: to this process.
        workers: to the processes that load data.
    """

    def __init__(
        self, number: int, hook: str, batch: int = 0, times: int = 1, main: bool = True, workers: bool = False
    ) -> None:
        self.number, self.batch, self.times, self.main, self.workers = number, batch, times, main, workers
        setattr(self, hook, self._act)

    def _act(self, *arguments: Any, **_: Any) -> None:
        numbers = [each for each in arguments if isinstance(each, int)]
        if numbers and self.batch != numbers[0]:
            return
        times, self.times = self.times, 0
        targets = [os.getpid()] * self.main + [each.pid for each in active_children()] * self.workers
        for target in targets * times:
            os.kill(target, self.number)


def coin(answer: Answer, sample: Sample) -> float:
    """A diagnosis that is right by chance, as far as its text tells."""
    return float(sum(map(ord, answer.text)) % 3 == 0)


RATIOS: list[float] = []  # of the passes that `watched` saw, the one farthest from 1


def watched(logprobs: Tensor, old: Tensor, advantages: Tensor, weights: Tensor, low: float, high: float) -> Any:
    """GRPO's surrogate, which keeps what ratios it was given."""
    ratios = (logprobs.detach() - old).exp()[weights > 0]
    RATIOS.append(float(ratios[(ratios - 1).abs().argmax()]))
    return clipped_tokens(logprobs, old, advantages, weights, low, high)


class Elsewhere:
    """An engine that finds every token half as probable as it is."""

    def complete(
        self,
        backbone: VLMBackbone,
        batch: PromptBatch,
        sampling: Sampling,
        group_size: int,
        seed: str,
        prefix: Prefix | None = None,
    ) -> Completions:
        found = Decoder().complete(backbone, batch, sampling, group_size, seed, prefix)
        return found._replace(logprobs=found.logprobs - math.log(2) * found.mask)


def of_some_samples(answer: Answer, sample: Sample) -> float | None:
    """A reward that does not apply to every sample."""
    return None if sum(map(ord, sample.id)) % 2 else 0.25


def of_some_answers(answer: Answer, sample: Sample) -> float | None:
    """A reward that does not apply to every answer, not even of a group."""
    return None if len(answer.text) % 2 else 0.5


class HalfByDefault(Callback):
    """Lets whatever a batch makes without saying its dtype be bfloat16, as Lightning does for ``bf16-true``."""

    def _half(self, *_: Any) -> None:
        torch.set_default_dtype(torch.bfloat16)

    def _single(self, *_: Any) -> None:
        torch.set_default_dtype(torch.float32)

    on_train_batch_start = on_validation_batch_start = on_test_batch_start = on_predict_batch_start = _half
    on_train_batch_end = on_validation_batch_end = on_test_batch_end = on_predict_batch_end = on_exception = _single


class Recited:
    """An engine that samples nothing: a right answer, a wrong one and a broken one, over and over."""

    texts = (
        " <think> colour : brown . </think> <answer> melanoma </answer>",
        " <think> colour : black . </think> <answer> psoriasis </answer>",
        " <think> colour",
    )

    def complete(
        self,
        backbone: VLMBackbone,
        batch: PromptBatch,
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
