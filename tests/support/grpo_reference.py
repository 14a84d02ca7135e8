"""Reference implementation of one GRPO step: the gradients, advantages and log-probs that the product has to give.

Nothing of `dermiq` computes here: prompts are encoded and the model runs, one plain forward pass per completion, each
with its own prompt and images; advantages are numpy in float64, loops and textbook formulas; the loss is written down
token by token.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback
from torch import Tensor

from dermiq.policy.processing import encode_prompts

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Recipe:
    """What a run is configured with, by names of the oracle's own."""

    advantage: str = "anchored"
    weights: str = "constant"
    surrogate: str = "tokens"
    clip: tuple[float, float] = (0.2, 0.28)
    kl: float = 0.1
    entropy: float = 0.05
    temperature: float = 0.7
    longest: int = 12


@dataclass
class Recorder(Callback):
    """Keeps of each optimiser step its weights and gradients, and of each batch what was sampled.

    The gradients are those that the optimiser is given; the batches of a step are those since the one before, or, with
    inner epochs, the latest.
    """

    weights: list[dict[str, Tensor]] = field(default_factory=list)
    gradients: list[dict[str, Tensor]] = field(default_factory=list)
    batches: list[tuple[Any, Any]] = field(default_factory=list)
    seen: list[int] = field(default_factory=list)  # finished batches before each step

    def watch(self, optimizer: torch.optim.Optimizer, module: Any) -> None:
        """Record the weights before, and the gradients after each step of the optimiser, which are still there."""
        trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}

        def before(*_: Any) -> None:
            self.weights.append({name: weight.detach().clone() for name, weight in trained.items()})
            self.seen.append(len(self.batches))

        def after(*_: Any) -> None:
            self.gradients.append({name: weight.grad.clone() for name, weight in trained.items()})

        optimizer.register_step_pre_hook(before)
        optimizer.register_step_post_hook(after)

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self.watch(trainer.optimizers[0], pl_module)

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.batches.append((batch, outputs))


def grouped(rewards: Array) -> Array:
    """(r - mean) / (unbiased std + 1e-6) in each group, 0 where all are equal."""
    out = np.zeros_like(rewards)
    for place, group in enumerate(rewards):
        if len(set(group)) > 1:
            out[place] = (group - group.mean()) / (group.std(ddof=1) + 1e-6)
    return out


def anchored(rewards: Array, right: Array, confidence: Array) -> Array:
    """GRPO++'s estimator at its default options, answer by answer."""
    out = np.zeros_like(rewards)
    for b, group in enumerate(rewards):
        outcome = np.where(right[b], 1.0, -1.0)
        for i, reward in enumerate(group):
            peers = [group[j] for j in range(len(group)) if right[b, j] == right[b, i]]
            value = 0.5 * outcome[i] + 0.5 * (outcome[i] - outcome.mean()) / 2 + reward - np.mean(peers)
            value = max(value, 0.0) if right[b, i] else min(value, 0.0) * min(max(confidence[b, i], 0.1), 1.0)
            out[b, i] = value * (0.5 if right[b].all() or not right[b].any() else 1.0)
    return out


def advantages(kind: str, outputs: Any, confidence: Array) -> Array:
    """[B, G] float64 of what a batch was graded."""
    rewards = outputs["scores"].total.double().numpy()
    if kind == "grouped":
        return grouped(rewards)
    if kind == "centred":
        return rewards - rewards.mean(axis=1, keepdims=True)
    if kind == "others":
        size = rewards.shape[1]
        return rewards - (rewards.sum(axis=1, keepdims=True) - rewards) / (size - 1)
    return anchored(rewards, outputs["scores"].correct.numpy(), confidence)


def distribution(backbone: Any, batch: Any, row: int, tokens: Tensor, temperature: float) -> Tensor:
    """[t, V] log-probs by one forward pass over prompt, images and completion, without a cache."""
    prompt = encode_prompts(backbone.processor, [batch["messages"][row]], [batch["images"][row]])
    start = prompt["input_ids"].shape[1]
    inputs = dict(prompt) | {"input_ids": torch.cat([prompt["input_ids"], tokens[None]], dim=1)}
    for name in {"attention_mask", "token_type_ids", "mm_token_type_ids"} & prompt.keys():
        more = torch.full((1, len(tokens)), int(name == "attention_mask"), dtype=prompt[name].dtype)
        inputs[name] = torch.cat([prompt[name], more], dim=1)
    if hasattr(backbone.vlm.model, "rope_deltas"):
        backbone.vlm.model.rope_deltas = None
    logits = backbone.vlm(**inputs, use_cache=False).logits[0, start - 1 : -1]
    return (logits.masked_fill(backbone.banned, -torch.inf) / temperature).log_softmax(dim=-1)


def surrogate(kind: str, log_ratio: Tensor, logprobs: Tensor, advantage: float, clip: tuple[float, float]) -> Tensor:
    """[t] of one completion: what is raised."""
    low, high = 1 - clip[0], 1 + clip[1]
    if kind == "weights":
        return log_ratio.exp().clamp(low, high).detach() * advantage * logprobs
    ratio = (log_ratio.mean().expand_as(log_ratio) if kind == "sequences" else log_ratio).exp()
    return torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)


@dataclass
class Told:
    """What the oracle makes of a batch: the sum of its loss, what to divide it by, and how far the product is off."""

    loss: Tensor
    count: int
    advantages: float
    logprobs: float


def batch_loss(backbone: Any, recipe: Recipe, batch: Any, outputs: Any, old: Sequence[Tensor] | None) -> Told:
    """The loss under the weights as they are; `old` are log-probs of the policy that sampled, None if it is this."""
    rollout = outputs["rollout"]
    completions = [rollout.ids[n][rollout.mask[n]] for n in range(len(rollout.ids))]
    rows, group = rollout.rows.tolist(), len(rollout.ids) // len(rollout.samples)
    kept = zip(rollout.logprobs, rollout.mask, strict=True)
    confidence = np.array([np.exp(logs[mask].double().mean().item()) for logs, mask in kept])
    expected = advantages(recipe.advantage, outputs, confidence.reshape(-1, group))
    total, off = torch.zeros(()), 0.0
    for n, tokens in enumerate(completions):
        logs = distribution(backbone, batch, rows[n], tokens, recipe.temperature)
        mine = logs.gather(-1, tokens[:, None])[:, 0]
        entropy = -(logs.exp() * logs.masked_fill(logs == -torch.inf, 0.0)).sum(dim=-1)
        with torch.no_grad(), backbone.reference():
            reference = distribution(backbone, batch, rows[n], tokens, recipe.temperature)
        apart = reference.gather(-1, tokens[:, None])[:, 0] - mine
        before = mine.detach() if old is None else old[n]
        raised = surrogate(recipe.surrogate, mine - before, mine, float(expected.flat[n]), recipe.clip)
        loss = recipe.kl * (apart.exp() - apart - 1) - raised - recipe.entropy * entropy
        weight = {"constant": 1 / recipe.longest, "sequence": 1 / len(tokens), "token": 1.0}[recipe.weights]
        total = total + weight * loss.sum()
        if old is None:
            off = max(off, float((mine.detach() - rollout.logprobs[n][rollout.mask[n]]).abs().max()))
    count = sum(map(len, completions)) if recipe.weights == "token" else len(completions)
    wrong = np.abs(expected - outputs["advantages"].numpy()).max() / max(1.0, np.abs(expected).max())
    return Told(total, count, float(wrong), off)


def old_logprobs(backbone: Any, recipe: Recipe, batch: Any, outputs: Any) -> list[Tensor]:
    """Log-probs [t] of each completion under the weights as they are."""
    rollout = outputs["rollout"]
    found = []
    with torch.no_grad():
        for n, row in enumerate(rollout.rows.tolist()):
            tokens = rollout.ids[n][rollout.mask[n]]
            logs = distribution(backbone, batch, row, tokens, recipe.temperature)
            found.append(logs.gather(-1, tokens[:, None])[:, 0])
    return found


def off(module: Any, recipe: Recipe, record: Recorder) -> list[tuple[float, float, float]]:
    """Of each step, how far the product is from the oracle: gradients (relative), advantages, old log-probs."""
    backbone = module.backbone.eval()
    trained = {name: weight for name, weight in module.named_parameters() if weight.requires_grad}
    result, before = [], 0
    old: list[Tensor] | None = None
    for step, weights in enumerate(record.weights):
        inner = step % module.inner_epochs
        with torch.no_grad():
            for name, weight in trained.items():
                weight.copy_(weights[name])
                weight.grad = None
        # A step is made within its last batch, which is recorded when it ends.
        batches = record.batches[before : record.seen[step] + 1]
        before = record.seen[step] + (inner == module.inner_epochs - 1)
        if inner == 0 and module.inner_epochs > 1:
            first = old_logprobs(backbone, recipe, *batches[0])
        old = first if inner else None
        told = [batch_loss(backbone, recipe, *batch, old) for batch in batches]
        (sum(each.loss for each in told) / sum(each.count for each in told)).backward()
        worst = max(float((weight.grad - record.gradients[step][name]).abs().max()) for name, weight in trained.items())
        largest = max(float(weight.grad.abs().max()) for weight in trained.values())
        result.append((worst / largest, max(e.advantages for e in told), max(e.logprobs for e in told)))
    return result


def recorded(run: Callable[[], Any], monkeypatch: Any) -> tuple[Any, Recorder]:
    """A run of the command line with a recorder."""
    from dermiq.cli import DermIQCLI

    record, instantiate = Recorder(), DermIQCLI.instantiate_trainer

    def with_recorder(self: Any, **options: Any) -> Any:
        trainer = instantiate(self, **options)
        trainer.callbacks.append(record)
        return trainer

    monkeypatch.setattr(DermIQCLI, "instantiate_trainer", with_recorder)
    return run().model, record
