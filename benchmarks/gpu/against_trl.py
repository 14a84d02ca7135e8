"""TRL's GRPOTrainer on the same shapes: one optimiser step on one prompt, timed with the device at rest.

Its best configuration that runs: nothing is recomputed in the backward pass, the completions of a group are generated
in one call, no reference (beta 0), and micro-batches as large as the token budget and the memory allow.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from statistics import median
from typing import Any

import torch
from datasets import Dataset
from gpu.meter import Meter, Result
from gpu.shapes import TEMPLATE, Shape, build_model, build_tokenizer
from peft import LoraConfig
from PIL import Image
from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor
from trl import GRPOConfig, GRPOTrainer

LAYERS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj)"
TEMPLATE_TOKENS = 7  # two turns opened and one closed, two roles, both ends of the image


@dataclass
class TRLStep:
    """A trainer and the rows that its sampler would serve: one prompt and its image, once per completion.

    Attributes:
        trainer: TRL's.
        row: the prompt.
        group_size: completions.
        meter: of the device.
        optimizer: of the adapter.
        seconds: of the last step, by part: `rollout` (the call that generates), `update` (losses and backward passes),
            `step` (all, with TRL's image processing and its optimiser step).
    """

    trainer: GRPOTrainer
    row: dict[str, Any]
    group_size: int
    meter: Meter
    optimizer: torch.optim.Optimizer
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        trainer = self.trainer
        trainer._generate_single_turn = self._timed("rollout", trainer._generate_single_turn)
        trainer.compute_loss = self._timed("update", trainer.compute_loss)
        trainer.accelerator.backward = self._timed("update", trainer.accelerator.backward)

    def set_micro_batch(self, rows: int) -> None:
        """Split the group into micro-batches of `rows`, which divide it."""
        trainer, parts = self.trainer, self.group_size // rows
        trainer.args.per_device_train_batch_size = rows
        trainer.args.gradient_accumulation_steps = trainer.args.steps_per_generation = parts
        trainer.current_gradient_accumulation_steps = parts
        trainer._step, trainer._buffered_inputs = 0, None

    def __call__(self) -> None:
        """Take a step."""
        self.seconds = {"rollout": 0.0, "update": 0.0}
        self.seconds["step"] = self.meter.seconds(self._step)

    def _step(self) -> None:
        rows = [dict(self.row) for _ in range(self.group_size)]
        for _ in range(self.trainer.args.gradient_accumulation_steps):
            self.trainer.training_step(self.trainer.model, rows, None)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = []
            self.seconds[part] += self.meter.seconds(lambda: result.append(function(*args, **kwargs)))
            return result[0]

        return wrapper


def build_trl(shape: Shape, meter: Meter, attention: str, group_size: int, new_tokens: int, folder: str) -> TRLStep:
    """A trainer around a model of its own, whose policy writes words alone and never ends a turn."""
    never = list(range(shape.words, shape.text["vocab_size"]))
    model = build_model(shape, meter.device, torch.bfloat16, attention)
    names = {each.name for each in fields(GRPOConfig)}
    recompute = "activation_checkpointing" if "activation_checkpointing" in names else "gradient_checkpointing"
    arguments = GRPOConfig(
        folder, bf16=True, use_cpu=not meter.cuda, report_to="none", save_strategy="no", beta=0.0,
        num_generations=group_size, per_device_train_batch_size=group_size, max_completion_length=new_tokens,
        temperature=1.0, top_k=0, top_p=1.0, generation_kwargs={"suppress_tokens": never},
        log_completions=False, **{recompute: False},
    )  # fmt: skip
    trainer = GRPOTrainer(
        model=model, args=arguments, reward_funcs=_reward,
        train_dataset=Dataset.from_list([{"prompt": "unused"}]), processing_class=_processor(shape),
        peft_config=LoraConfig(r=shape.rank, lora_alpha=2 * shape.rank, target_modules=LAYERS),
    )  # fmt: skip
    trainer.model.train()
    trained = [weight for weight in trainer.model.parameters() if weight.requires_grad]
    return TRLStep(trainer, _row(shape), group_size, meter, torch.optim.AdamW(trained, lr=1e-6))


def measure_trl(step: TRLStep, rows: int, repeats: int) -> Result:
    """Median seconds and peak memory of a step in micro-batches of `rows` completions, or as many as fit."""
    while True:
        step.set_micro_batch(rows)
        try:
            step()
            break
        except torch.OutOfMemoryError:
            if rows == 1:
                raise
        rows = largest_divisor(step.group_size, rows - 1)
        step.optimizer.zero_grad()
        step.meter.clear()
    runs: list[dict[str, float]] = []
    result: Result = {"rows_per_pass": rows}
    with step.meter.peak(result):
        for _ in range(repeats):
            step()
            runs.append(step.seconds)
    return result | {part: {"seconds": median(run[part] for run in runs)} for part in ("step", "rollout", "update")}


def largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is no more than `limit` (at least 1)."""
    return max(n for n in range(1, max(1, limit) + 1) if number % n == 0)


def _processor(shape: Shape) -> Qwen2_5_VLProcessor:
    pixels = {name: shape.vision[name] for name in ("patch_size", "temporal_patch_size")}
    pixels["merge_size"] = shape.vision["spatial_merge_size"]
    tokenizer = build_tokenizer(shape.words)
    return Qwen2_5_VLProcessor(
        Qwen2VLImageProcessor(**pixels), tokenizer, Qwen2VLVideoProcessor(**pixels), chat_template=TEMPLATE
    )


def _row(shape: Shape) -> dict[str, Any]:
    """A prompt as long as that of the other paths: the template's own tokens, the image's, and words."""
    side = shape.grid * shape.vision["spatial_merge_size"] * shape.vision["patch_size"]
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (side, side, 3), generator=generator, dtype=torch.uint8)
    words = shape.prompt_tokens - shape.grid**2 - TEMPLATE_TOKENS
    text = " ".join(f"w{i}" for i in range(words))
    return {"prompt": [{"role": "user", "content": text}], "image": Image.fromarray(pixels.numpy())}


def _reward(completions: list[Any], **_: Any) -> list[float]:
    return [float(i % 2) for i in range(len(completions))]
