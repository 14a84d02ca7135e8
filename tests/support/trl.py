"""TRL's trainers beside DermIQ's stages: one tiny Qwen2.5-VL, the same adapter weights in both."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from lightning.pytorch import Callback, LightningModule, Trainer
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import AutoModelForImageTextToText, AutoProcessor

from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.lora import LoRA


def picture(seed: int, size: int = 48) -> Image.Image:
    """A square of noise."""
    generator = torch.Generator().manual_seed(seed)
    return Image.fromarray(torch.randint(0, 256, (size, size, 3), generator=generator, dtype=torch.uint8).numpy())


def load_policy(directory: Path) -> VLMBackbone:
    """A policy in training mode whose new adapter is random, not zero, so that it differs from its reference."""
    torch.manual_seed(0)
    backbone = VLMBackbone(str(directory), LoRA(rank=4))
    backbone.load()
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(0.0, 0.3)
    return backbone.train()


def quiet_trainer(**options: Any) -> Trainer:
    """A Lightning trainer on the CPU that writes nothing."""
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(accelerator="cpu", enable_model_summary=False, **quiet, **options)


def attached(module: LightningModule) -> LightningModule:
    """A stage that can run backward outside of `fit`."""
    module.trainer = quiet_trainer()
    module.trainer.strategy.connect(module)
    return module


class _Gradients(Callback):
    def on_after_backward(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.found = {name: weight.grad.clone() for name, weight in adapter_weights(pl_module).items()}


def first_step(module: LightningModule, batch: dict[str, Any]) -> tuple[float, dict[str, Tensor]]:
    """The logged loss and the gradients of the first step of `fit`, whose optimiser must leave the weights alone."""
    before = {name: weight.detach().clone() for name, weight in adapter_weights(module).items()}
    recorder = _Gradients()
    trainer = quiet_trainer(max_steps=1, limit_val_batches=0, callbacks=[recorder])
    batches = DataLoader([batch], batch_size=None)
    trainer.fit(module, batches, batches)
    assert all(torch.equal(weight, before[name]) for name, weight in adapter_weights(module).items())
    module.zero_grad(set_to_none=True)
    return trainer.callback_metrics["train/loss"].item(), recorder.found


def adapter_weights(model: nn.Module) -> dict[str, nn.Parameter]:
    """The trained weights under the names that peft gives them, which both sides share."""
    return {
        name[name.index("base_model.") :]: parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """The gradients of all trained weights, taken away from the model."""
    found = {name: parameter.grad for name, parameter in adapter_weights(model).items()}
    model.zero_grad(set_to_none=True)
    assert found and all(value is not None for value in found.values())
    return found


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """Norm of the difference over the norm of what is expected."""
    assert found.keys() == expected.keys()
    distance = sum(float((found[name] - expected[name]).square().sum()) for name in expected) ** 0.5
    return distance / sum(float(value.square().sum()) for value in expected.values()) ** 0.5


def trl_trainer(
    backbone: VLMBackbone, trainer: Callable[..., Any], config: Callable[..., Any], rows: list[dict], **options: Any
) -> Any:
    """One of TRL's trainers on its own copy of the policy, loaded and wrapped by its own code.

    The adapter is a new one to TRL, so its reference is the base without adapter; the policy's weights come after.
    """
    arguments = config(
        use_cpu=True, bf16=False, report_to="none", activation_checkpointing=False, save_strategy="no", **options
    )
    built = trainer(
        model=AutoModelForImageTextToText.from_pretrained(backbone.model_id),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoProcessor.from_pretrained(backbone.model_id),
        peft_config=copy.deepcopy(backbone.model.peft_config["default"]),
    )
    theirs, ours = adapter_weights(built.model), adapter_weights(backbone)
    assert theirs.keys() == ours.keys()
    with torch.no_grad():
        for name, parameter in theirs.items():
            parameter.copy_(ours[name])
    built.model.train()
    built.current_gradient_accumulation_steps = 1  # what `train` sets before the first step
    return built
