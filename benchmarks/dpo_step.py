"""Time one DPO step: DermIQ's shared prompt against TRL's `DPOTrainer`, on the same model, pair and adapter weights.

    python benchmarks/dpo_step.py [--prompt-tokens 1100] [--new-tokens 64] [--out FILE]

Both train on the same pair again and again, in turn, each with its own model and optimiser. They must agree on the
gradient of the first step and on the loss of every step. What is measured, and how to read the JSON:
`benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_models import HIDDEN, Case, build, image_tokens
from dermiq_grpo import load_policy
from measuring import machine, publish
from torch import Tensor
from torch.nn.functional import pad
from trl import DPOConfig, DPOTrainer
from turns import MAX_NORM, adamw, take_turns

from dermiq.modules import DPOModule
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.batches import Samples
from dermiq.schema import PreferencePair
from support.trl import trl_trainer

BETA, SIZE = 0.1, "medium"

Inputs = dict[str, Tensor]


def completions(policy: VLMBackbone, length: int) -> Tensor:
    """Ids [2, length] of two replies, sampled from the tokens that a policy may write."""
    allowed = (~policy.banned).nonzero().flatten()
    generator = torch.Generator().manual_seed(0)
    return allowed[torch.randint(len(allowed), (2, length), generator=generator)]


def dermiq_batch(case: Case, prompt: Inputs, ids: Tensor) -> dict[str, Any]:
    """A batch of one pair [2, T] as the data module serves it, its tensors new."""
    fields = {"id": "pair", "images": case.sample.images, "target": "", "label": "", "group": "pair"}
    return {
        "samples": Samples([PreferencePair(**fields, chosen="a", rejected="b")]),
        "messages": [case.messages],
        "images": [case.images],
        "prompt": {name: value.clone() for name, value in prompt.items()},
        "completion_ids": ids,
        "completion_mask": torch.ones_like(ids, dtype=torch.bool),
    }


def trl_inputs(prompt: Inputs, ids: Tensor) -> Inputs:
    """The same pair as TRL's collator serves it: each completion behind its own copy of prompt and image."""
    inputs = {name: value.repeat(2, *[1] * (value.ndim - 1)) for name, value in prompt.items()}
    length = inputs["input_ids"].shape[1]
    inputs["input_ids"] = torch.cat([inputs["input_ids"], ids], dim=1)
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    inputs["mm_token_type_ids"] = pad(inputs["mm_token_type_ids"], (0, ids.shape[1]))
    inputs["completion_mask"] = pad(torch.ones_like(ids), (length, 0))
    return inputs


def time_steps(case: Case, new_tokens: int, repeats: int, precomputed: bool) -> dict[str, Any]:
    """Steps of both in turn; the reference's log-probs are computed in every step, or known from the first one on."""
    policy = load_policy(case.directory).train()
    prompt, ids = case.batch(new_tokens)["prompt"], completions(policy, new_tokens)
    with tempfile.TemporaryDirectory() as folder:
        row = {"prompt": "unused", "chosen": "unused", "rejected": "unused", "images": []}
        trainer = trl_trainer(policy, DPOTrainer, DPOConfig, [row], output_dir=folder, beta=BETA, max_length=None)
        inputs = trl_inputs(prompt, ids)
        if precomputed:  # TRL refuses to for images, so its own code is asked directly
            trainer.precompute_ref_logps = True
            inputs["ref_chosen_logps"], inputs["ref_rejected_logps"] = trainer.compute_ref_log_probs(
                trainer.model, inputs
            )
        module = DPOModule(
            policy, None, adamw, max_grad_norm=MAX_NORM, beta=BETA,
            reference_cache=str(Path(folder) / "reference.jsonl") if precomputed else None,
        )  # fmt: skip
        batches = [dermiq_batch(case, prompt, ids) for _ in range(repeats + 1)]
        return take_turns(module, batches, trainer, lambda: {name: value.clone() for name, value in inputs.items()})


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time one DPO step: DermIQ against TRL's DPOTrainer.")
    parser.add_argument("--prompt-tokens", type=int, default=1100, help="image and text")
    parser.add_argument("--new-tokens", type=int, default=64, help="length of both completions")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    return parser.parse_args()


def main() -> None:
    """Measure, and print JSON."""
    options = parse()
    os.environ["CI"] = "1"  # TRL reports every trainer to its makers otherwise
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        case = build("qwen2_5_vl", SIZE, options.prompt_tokens, Path(folder))
        policy = load_policy(case.directory)
        result = {
            "machine": machine("torch", "transformers", "peft", "trl", "dermiq") | {"load_average": os.getloadavg()[0]},
            "settings": {name: value for name, value in vars(options).items() if name != "out"},
            "model": {
                "family": f"qwen2_5_vl, {HIDDEN[SIZE]} wide, random weights, float32",
                "parameters": sum(p.numel() for p in policy.vlm.parameters()),
                "trainable": sum(p.numel() for p in policy.trainable_parameters()),
                "image_tokens": image_tokens(policy.vlm.config, case),
            },
            "reference_in_every_step": time_steps(case, options.new_tokens, options.repeats, precomputed=False),
            "reference_precomputed": time_steps(case, options.new_tokens, options.repeats, precomputed=True),
        }
    publish(result, options.out)


if __name__ == "__main__":
    main()
