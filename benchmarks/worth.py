"""Ablation of speed: a GRPO step with and without each of its optimisations, in turn.

    python benchmarks/worth.py --out benchmarks/results/worth.json

Every optimisation is exact: both ways compute the same; `tests/` hold them to it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from bench_models import Case, build
from dermiq_grpo import load_policy
from measuring import exact_malloc, forget_peak, machine, publish, resident, summary
from torch import Tensor

import dermiq.policy.decoding as decoding
from dermiq.policy.attention import SharedPrefix
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.logprobs import Output, log_distribution, token_logprobs
from dermiq.policy.prefix import Prefix, prefill, score
from dermiq.policy.rollout import Rollout, Sampling, sample_rollout

Step = Callable[[], None]
GROUP, LENGTH, PROMPT = 8, 64, 1100
TOKENS, WIDTH, WORDS = 512, 256, 151_936  # of the vocabulary's benchmark: a large one, as in Qwen2.5-VL


class Lab:
    """A policy, a prompt, and the parts of a step on them."""

    def __init__(self, case: Case) -> None:
        self.case, self.policy = case, load_policy(case.directory).eval()
        self.policy.banned[list(self.policy.stop_ids)] = True
        self.prompt = case.batch(LENGTH)["prompt"]
        with torch.no_grad():
            self.prefix = prefill(self.policy, self.prompt)
        self.batch = {"prompt": self.prompt, "samples": [case.sample]}
        self.rollout = self.sample()

    def sample(self) -> Rollout:
        """Completions of the prompt that has run."""
        return sample_rollout(self.policy, self.batch, Sampling(LENGTH), GROUP, prefix=self.prefix)

    def update(self, parts: list[Tensor], widths: list[int]) -> None:
        """Forward and backward of completions against the prompt's leaves."""
        leaves = Prefix.detach(self.prefix_with_grad())
        for part, width in zip(parts, widths, strict=True):
            rows = self.rollout.rows[part]
            tokens = score(self.policy, leaves, rows, self.rollout.ids[part, :width], self.rollout.mask[part, :width])
            tokens.logprobs.sum().backward()
        self.policy.zero_grad(set_to_none=True)

    def prefix_with_grad(self) -> Prefix:
        """The prompt's states as leaves that want gradients."""
        states = tuple((k.detach().requires_grad_(), v.detach().requires_grad_()) for k, v in self.prefix.states)
        return Prefix(states, self.prefix.last_state.detach().requires_grad_(), None, self.prefix.next_position)


@contextmanager
def copied_prompts() -> Iterator[None]:
    """Every completion attends to a copy of its prompt's keys and values."""
    shared = Prefix.shared

    def copied(self: Prefix, prompts: Tensor, first: int | Tensor = 0) -> SharedPrefix:
        rows = prompts.repeat_interleave(GROUP) if len(prompts) == 1 else prompts
        states = [(keys[rows], values[rows]) for keys, values in self.states]
        return SharedPrefix(states, None, first) if len(prompts) == 1 else shared(self, prompts, first)

    with mock.patch.object(Prefix, "shared", copied):
        yield


@contextmanager
def early_ends(policy: VLMBackbone) -> Iterator[None]:
    """One token in forty ends a completion, so that lengths differ as those of a trained policy do."""
    stops, banned = policy.stop_ids, policy.banned.clone()
    policy.stop_ids = (*stops, *range(100, 480, 40))
    try:
        yield
    finally:
        policy.stop_ids = stops
        policy.banned.copy_(banned)


def side_by_side(on: Step, off: Step, repeats: int, off_context: Callable[[], AbstractContextManager[Any]]) -> Any:
    """Seconds of both, in turn after a warm-up, and how many times as long the second takes."""
    seconds: dict[str, list[float]] = {"with": [], "without": []}
    for turn in range(repeats + 1):
        for name, step, context in (("with", on, nullcontext), ("without", off, off_context)):
            with context():
                start = time.perf_counter()
                step()
                if turn:
                    seconds[name].append(time.perf_counter() - start)
    ratios = [slow / fast for fast, slow in zip(seconds["with"], seconds["without"], strict=True)]
    return {name: summary(values) for name, values in seconds.items()} | {"without_over_with": summary(ratios)}


def measure_time(lab: Lab, repeats: int) -> dict[str, Any]:
    """Each part's worth in the phase that it belongs to."""
    everyone = [torch.arange(GROUP)]
    found = {
        "rollout: a group reads its prompt together": side_by_side(lab.sample, lab.sample, repeats, copied_prompts),
        "rollout: the adapter folded into float32 weights": side_by_side(
            lab.sample, lab.sample, repeats, lambda: mock.patch.object(VLMBackbone, "folded", lambda _: nullcontext())
        ),
        "update: a group reads its prompt together": side_by_side(
            lambda: lab.update(everyone, [LENGTH]), lambda: lab.update(everyone, [LENGTH]), repeats, copied_prompts
        ),
    }
    with early_ends(lab.policy):
        lab.rollout = lab.sample()
        by_length = [part.index for part in lab.rollout.parts(2 * LENGTH)]
        widths = [int(lab.rollout.mask[part].sum(-1).max()) for part in by_length]
        pairs = list(torch.arange(GROUP).split(2))
        width = lab.rollout.ids.shape[1]
        found["rollout: finished rows leave"] = side_by_side(
            lab.sample, lab.sample, repeats, lambda: mock.patch.object(decoding, "_COMPACT_BELOW", 0.0)
        )
        found["update: micro-batches by tokens, as wide as their longest row"] = side_by_side(
            lambda: lab.update(by_length, widths), lambda: lab.update(pairs, [width] * len(pairs)), repeats, nullcontext
        ) | {"lengths": lab.rollout.lengths.flatten().tolist()}
    return found


def measure_vocabulary(repeats: int) -> dict[str, Any]:
    """Log-probs of some tokens over a large vocabulary, forward and backward: in pieces, and of all logits at once."""
    torch.manual_seed(0)
    output = Output(torch.randn(WORDS, WIDTH), None, None)
    states, targets = torch.randn(TOKENS, WIDTH, requires_grad=True), torch.randint(WORDS, (TOKENS,))

    def pieces() -> None:
        logprobs, _ = token_logprobs(states, targets, output)
        logprobs.sum().backward()

    def whole() -> None:
        distribution = log_distribution(states, output)
        distribution.exp().mul(distribution).sum(-1)
        distribution.gather(-1, targets[:, None]).sum().backward()

    found = side_by_side(pieces, whole, repeats, nullcontext)
    for name, step in (("with", pieces), ("without", whole)):
        before = resident("VmRSS")
        forget_peak()
        step()
        found[name]["mib_added"] = resident("VmHWM") - before
    return found | {"tokens": TOKENS, "vocabulary": WORDS, "width": WIDTH}


def main() -> None:
    """Measure, print, and write JSON if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    exact_malloc()
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(build("qwen2_5_vl", "medium", PROMPT, Path(folder)))
        result = {
            "machine": machine("torch", "transformers", "peft", "dermiq"),
            "settings": {"prompt_tokens": PROMPT, "new_tokens": LENGTH, "group_size": GROUP, **vars(options)},
            "parts": measure_time(lab, options.repeats)
            | {"update: log-probs in pieces of the vocabulary": measure_vocabulary(2)},
        }
    result["settings"].pop("out")
    publish(result, options.out)


if __name__ == "__main__":
    main()
