"""Options to change where a training step takes too much memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from lightning.pytorch import Trainer

from dermiq.datamodules import DermDataModule
from dermiq.modules import GRPOModule, StageModule
from dermiq.policy.decoding import Decoder


class Advice(NamedTuple):
    """Options of the command line whose values take less memory than the present ones, and what they do."""

    options: str
    effect: str


def advised(trainer: Trainer, module: StageModule, data: DermDataModule) -> Iterator[Advice]:
    """Options to change, in this order: first what costs time alone, last what changes the result."""
    if isinstance(module, GRPOModule):
        yield from _smaller_passes(module, data)
    yield from _smaller_batches(trainer, module, data)
    if not module.backbone.gradient_checkpointing:
        instead = " --model.backbone.offload_activations=false" if module.backbone.offload_activations else ""
        yield Advice(
            f"--model.backbone.gradient_checkpointing=true{instead}",
            "computes layers twice, same result; offload_activations=true in its place saves less",
        )
    if not module.backbone.load_in_4bit:
        yield Advice("--model.backbone.load_in_4bit=true", "frozen weights of 4 bits, rounded")
    if isinstance(module, GRPOModule):
        yield from _smaller_groups(module)
    yield Advice("smaller images", "fewer tokens: in preprocessor_config.json of a copy of the model's directory")


def _smaller_passes(module: GRPOModule, data: DermDataModule) -> Iterator[Advice]:
    rows, width = data.batch_size * module.group_size, module.sampling.max_new_tokens
    tokens = module.tokens_per_pass or rows * width
    if tokens > width:
        value = max(width, tokens // 2)
        yield Advice(f"--model.tokens_per_pass={value}", "fewer completions forward and backward at once; same result")
    if isinstance(module.engine, Decoder):
        at_once = min(module.engine.rows_per_pass or rows, rows)
        if at_once > 1:
            option = f"--model.engine=dermiq.policy.decoding.Decoder --model.engine.rows_per_pass={at_once // 2}"
            yield Advice(option, "fewer completions decoded at once; same result")


def _smaller_batches(trainer: Trainer, module: StageModule, data: DermDataModule) -> Iterator[Advice]:
    if data.batch_size == 1 or (isinstance(module, GRPOModule) and module.inner_epochs > 1):
        return
    size = next(size for size in range(data.batch_size // 2, 0, -1) if data.batch_size % size == 0)
    batches = module.accumulated_batches * (data.batch_size // size)
    option, result = "--trainer.accumulate_grad_batches", "same result"
    if isinstance(module, GRPOModule):  # the number of the batch is in the seed of its completions
        option, result = "--model.accumulate_batches", "other completions"
    yield Advice(f"--data.batch_size={size} {option}={batches}", f"as many samples in each update; {result}")


def _smaller_groups(module: GRPOModule) -> Iterator[Advice]:
    if module.group_size > 2:
        yield Advice(f"--model.group_size={max(2, module.group_size // 2)}", "fewer completions of each prompt")
    if module.sampling.max_new_tokens > 1:
        yield Advice(
            f"--model.sampling.max_new_tokens={module.sampling.max_new_tokens // 2}",
            "cuts completions off earlier; train/truncated says how many",
        )
