"""Conversations of all kinds, encoded for a tiny model, and a file of them with JPEG images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from dermiq.policy.backbone import LoRA, VLMBackbone
from dermiq.policy.processing import ProcessorMixin, encode_conversations
from support.images import picture
from support.small_data import write_jpeg


def write_talks(folder: Path, count: int = 16, name: str = "talks.jsonl") -> Path:
    """Conversations of one to four turns about one photograph each."""
    rows = []
    for i in range(count):
        write_jpeg(folder / f"{i}.jpg", i)
        messages = []
        for turn in range(1 + i % 4):
            messages.append({"role": "user", "content": f"{'<image>' * (turn == 0)}Question {turn} about the mole?"})
            messages.append({"role": "assistant", "content": "It is a brown mole. " * (1 + 2 * (i % 3))})
        rows.append({"messages": messages, "images": [f"{i}.jpg"]})
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


IMAGE = {"type": "image"}


def say(role: str, *parts: Any) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": p} if isinstance(p, str) else p for p in parts]}


SINGLE = [say("user", IMAGE, "What is it?"), say("assistant", "<think> brown </think> <answer> nevus </answer>")]


LONGER = [
    say("system", "Look."),
    say("user", IMAGE, IMAGE, "Which skin condition do these two photographs show?"),
    say("assistant", "A melanoma."),
]


TURNS = [
    say("system", "Look."),
    say("user", "Can you help me?"),
    say("assistant", "Yes. Show it."),
    say("user", IMAGE, "What is it?"),
    say("assistant", "A nevus."),
    say("user", "And these?", IMAGE, IMAGE),
    say("assistant", "One is a melanoma, one is not."),
    say("user", "Is it urgent?"),
    say("assistant", "The melanoma is."),
]


TEXT = [say("user", "What is a melanoma, please?"), say("assistant", "A tumour.")]


TEXTS = [say("user", "Hm?"), say("assistant", "Show me the skin."), say("user", "No."), say("assistant", "Then not.")]


def pictures(conversation: list[dict[str, Any]]) -> list:
    count = sum(part == IMAGE for message in conversation for part in message["content"])
    return [picture(i, (48, 64)[i % 2]) for i in range(count)]


def loaded(directory: Path, checkpointing: bool = False) -> VLMBackbone:
    torch.manual_seed(0)
    backbone = VLMBackbone(str(directory), LoRA(rank=4), gradient_checkpointing=checkpointing)
    backbone.load()
    with torch.no_grad():
        for name, parameter in sorted(backbone.named_parameters()):
            if "lora_B" in name:
                parameter.normal_(0, 0.3)
    return backbone.train()


def encoded(processor: ProcessorMixin, *conversations: list) -> tuple[dict, torch.Tensor]:
    return encode_conversations(processor, conversations, [pictures(each) for each in conversations])
