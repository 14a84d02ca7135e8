"""TRL's side of the GRPO benchmark: its own trainer, on its own copy of the policy, in its fastest configuration."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import trl.trainer.utils as trl_utils
from bench_models import Case
from dermiq_grpo import MAX_NORM, RATE
from measuring import forget_peak, resident
from torch import Tensor
from torch.nn.functional import pad
from trl import GRPOConfig, GRPOTrainer, prepare_multimodal_messages

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.prefix import prefill, score
from support.trl import adapter_weights, trl_trainer

LARGEST_MICRO_BATCH = 16  # of those that are tried
TRIES = 2


class TRLSteps:
    """Optimiser steps of `GRPOTrainer` on one prompt, again and again.

    Nothing is recomputed in the backward pass (`activation_checkpointing=False`; TRL's default is on), there is no
    KL penalty, and its log-probs are made of the completions alone, as on a GPU (on a CPU it would project the
    prompts to the vocabulary too).

    Args:
        backbone: the policy; the trainer gets a copy of its adapter.
        case: the model's directory and the prompt.
        group_size: completions per prompt.
        new_tokens: length of every completion: no token that could end one is sampled.
        folder: for whatever the trainer writes.

    Attributes:
        seconds: of the last step: `step`; in it `data` (the processor, which TRL calls twice in each step for all
            completions), `rollout` (generation), and `update` (loss and backward of all micro-batches).
    """

    def __init__(self, backbone: VLMBackbone, case: Case, group_size: int, new_tokens: int, folder: Path) -> None:
        never = [*backbone.banned.nonzero().flatten().tolist(), *backbone.stop_ids]
        self.trainer: Any = trl_trainer(
            backbone, partial(GRPOTrainer, reward_funcs=_reward), GRPOConfig, [{"prompt": "unused"}],
            output_dir=str(folder), beta=0.0, num_iterations=1, num_generations=group_size,
            per_device_train_batch_size=group_size, max_completion_length=new_tokens, temperature=1.0, top_k=0,
            top_p=1.0, generation_kwargs={"suppress_tokens": never}, disable_dropout=True, log_completions=False,
            learning_rate=RATE, max_grad_norm=MAX_NORM,
        )  # fmt: skip
        self.weights = list(adapter_weights(self.trainer.model).values())
        self.optimizer = torch.optim.AdamW(self.weights, lr=RATE)
        self.group_size, self.new_tokens = group_size, new_tokens
        self.rows = [{"prompt": case.messages, "images": case.images} for _ in range(group_size)]
        self.seconds = dict.fromkeys(("data", "rollout", "update"), 0.0)
        self._watch()
        self.set_micro_batch(group_size)

    def set_micro_batch(self, rows: int) -> None:
        """Split a group into micro-batches of `rows` completions (`per_device_train_batch_size`).

        The completions are generated in one call whatever this is, as TRL's defaults have it.
        """
        arguments, trainer = self.trainer.args, self.trainer
        arguments.per_device_train_batch_size = rows
        arguments.gradient_accumulation_steps = arguments.steps_per_generation = self.group_size // rows
        trainer.current_gradient_accumulation_steps = self.group_size // rows
        trainer._step, trainer._buffered_inputs = 0, None

    def step(self) -> dict[str, float]:
        """Take a step, and return its seconds."""
        start = self._start()
        with completions_alone():
            for _ in range(self.trainer.args.gradient_accumulation_steps):
                self.trainer.training_step(self.trainer.model, self.rows, None)
        torch.nn.utils.clip_grad_norm_(self.weights, MAX_NORM)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.seconds["step"] = time.perf_counter() - start
        self.seconds["step_without_data"] = self.seconds["step"] - self.seconds["data"]
        lengths = self.trainer._metrics["train"]["completions/min_length"][-1:]
        assert lengths == [self.new_tokens], f"completions of {lengths} tokens"
        return dict(self.seconds)

    def calibrate(self, kept: Any) -> dict[str, Any]:
        """Choose the fastest micro-batch; the optimiser takes no step.

        One micro-batch of the group, its half, its quarter and so on runs `TRIES` times on the same completions, and
        the fastest counts; more than `LARGEST_MICRO_BATCH` completions at once are not tried.

        Args:
            kept: what `completions` gave.

        Returns:
            `micro_batch`, the chosen one, and `seconds_per_completion` of the update by micro-batch.
        """
        sizes = [size for size in _halves(self.group_size) if size <= LARGEST_MICRO_BATCH]
        tried: dict[int, float] = {}
        for size in sizes:
            seconds = []
            for _ in range(TRIES):
                self._start()
                self._update(kept, size, batches=1)
                seconds.append(self.seconds["update"] / size)
            tried[size] = min(seconds)
        best = min(tried, key=lambda size: tried[size])
        self.set_micro_batch(best)
        return {"micro_batch": best, "seconds_per_completion": tried}

    def completions(self) -> Any:
        """What TRL generates and scores for one step, before it is divided into micro-batches."""
        self._start()
        self.trainer.model.train()
        return self.trainer._generate_and_score_completions(self.rows)

    def _update(self, kept: Any, size: int, batches: int) -> None:
        """Gradients of the first micro-batches of `size` completions that were generated before; then they go."""
        self.set_micro_batch(size)
        with mock.patch.object(self.trainer, "_generate_and_score_completions", lambda _: dict(kept)):
            with completions_alone():
                for _ in range(batches):
                    self.trainer.training_step(self.trainer.model, self.rows, None)
        self.optimizer.zero_grad()

    def agreement(self, kept: Any, backbone: VLMBackbone, prompt: dict[str, Tensor]) -> dict[str, Any]:
        """How far both sides' log-probs of a completion of TRL's are apart, and whether they read the same prompt.

        TRL 1.16 encodes the prompt's text a second time for its scoring. Where a tokenizer adds `<bos>` to a text that
        has one (Gemma 3), its token types are one place off, and with them which tokens see each other both ways. The
        cost is the same; here it gets the right ones, and `trl_shifts_token_types` says so.

        Args:
            kept: what `completions` gave.
            backbone: the policy, with the same weights still.
            prompt: as DermIQ encodes it.
        """
        self.set_micro_batch(1)
        with mock.patch.object(self.trainer, "_generate_and_score_completions", lambda _: dict(kept)):
            inputs = self.trainer._prepare_inputs(self.rows)
        self.set_micro_batch(self.group_size)
        ids = inputs["completion_ids"]
        vision = {name: inputs[name] for name in _VISION if inputs.get(name) is not None}
        types = vision.get("token_type_ids")
        if types is not None:
            vision["token_type_ids"] = pad(prompt["token_type_ids"], (0, ids.shape[1]))
        whole = [torch.cat([inputs[f"prompt_{x}"], inputs[f"completion_{x}"]], dim=1) for x in ("ids", "mask")]
        with torch.no_grad(), completions_alone():
            theirs, _, _ = self.trainer._get_per_token_logps_and_entropies(
                self.trainer.model, *whole, ids.shape[1], **vision
            )
            prefix, row = prefill(backbone, prompt), torch.zeros(1, dtype=torch.int64)
            ours = score(backbone, prefix, row, ids, torch.ones_like(ids, dtype=torch.bool), restricted=False).logprobs
        return {
            "same_prompt": torch.equal(inputs["prompt_ids"], prompt["input_ids"]),
            "max_abs_logprob_difference": float((theirs - ours).abs().max()),
            "trl_shifts_token_types": types is not None and not torch.equal(types, vision["token_type_ids"]),
        }

    def peaks(self, micro_batch: int) -> dict[str, float]:
        """MiB of this process before a step, and at the peaks of its rollout and of its update."""
        chat = prepare_multimodal_messages(self.rows[0]["prompt"], images=self.rows[0]["images"])
        self.trainer._generate_single_turn(
            *self.trainer._tokenize_prompts([chat]), 1
        )  # what libraries allocate once, on first use
        found = {"before": resident("VmRSS")}
        forget_peak()
        kept = self.completions()
        found["rollout"] = resident("VmHWM")
        forget_peak()
        self._update(kept, micro_batch, batches=self.group_size // micro_batch)
        return found | {"update": resident("VmHWM")}

    def _start(self) -> float:
        self.seconds = dict.fromkeys(("data", "rollout", "update"), 0.0)
        return time.perf_counter()

    def _watch(self) -> None:
        """Time the parts of steps."""
        trainer = self.trainer
        trainer._generate_single_turn = self._timed("rollout", trainer._generate_single_turn)
        trainer.compute_loss = self._timed("update", trainer.compute_loss)
        trainer.accelerator.backward = self._timed("update", trainer.accelerator.backward)
        processor = trainer.processing_class
        call = self._timed("data", processor.__call__)
        processor.__class__ = type(
            type(processor).__name__, (type(processor),), {"__call__": lambda _, *args, **kwargs: call(*args, **kwargs)}
        )

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            result = function(*args, **kwargs)
            self.seconds[part] += time.perf_counter() - start
            return result

        return wrapper


_VISION = (
    "pixel_values", "image_grid_thw", "num_images", "pixel_attention_mask", "token_type_ids", "mm_token_type_ids",
)  # fmt: skip


@contextmanager
def completions_alone() -> Iterator[None]:
    """Let TRL project the completions alone to the vocabulary, as it does on a GPU, and not the prompts too.

    Its code asks for Triton in two places; this answers the one that chooses the positions.
    """
    with mock.patch.object(trl_utils, "_use_triton", lambda device: True):
        yield


def _halves(size: int) -> list[int]:
    """`size` and its halves down to 1, as long as they divide it."""
    found = [size]
    while found[-1] % 2 == 0:
        found.append(found[-1] // 2)
    return found


def _reward(completions: list[Any], **_: Any) -> list[float]:
    """Different within a group, whatever was written: advantages of zero would be no test of an update."""
    return [float(place % 2) for place in range(len(completions))]
