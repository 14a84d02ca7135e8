"""Time one SFT step: DermIQ, packed and padded, against TRL's `SFTTrainer`, on the same model and conversations.

    python benchmarks/sft_step.py [--longest 1100] [--conversations 4] [--out FILE]

All train on the same batch again and again, in turn, each with its own adapter and optimiser. They must agree on the
gradient of the first step and on the loss of every step. What is measured, and how to read the JSON:
`benchmarks/README.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor
from transformers.utils.logging import disable_progress_bar

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from measuring import exact_malloc, forget_peak, machine, publish, resident
from trl import SFTConfig, SFTTrainer
from turns import MAX_NORM, adamw, take_turns

from dermiq.datamodules.collate import Item
from dermiq.datamodules.conversation import ConversationCollate
from dermiq.modules import SFTModule
from dermiq.objectives.losses import sft_loss
from dermiq.policy.backbone import VLMBackbone
from dermiq.policy.packing import packed_logprobs
from dermiq.policy.prefix import sequence_logprobs
from dermiq.schema import Sample
from support.families import build_model_dir
from support.trl import load_policy, trl_trainer

LAYERS, HIDDEN = 3, 320
SETTINGS = ("longest", "shortest", "conversations", "reply", "repeats", "threads")
WORD = " a"  # one token, wherever it stands

Inputs = dict[str, Tensor]


def write_model(folder: Path) -> Path:
    """A Qwen2.5-VL of random weights whose pictures keep their size."""
    disable_progress_bar()
    directory = build_model_dir("qwen2_5_vl", folder, layers=LAYERS, hidden=HIDDEN)
    processor = AutoProcessor.from_pretrained(directory)
    processor.image_processor.size = {"shortest_edge": 1, "longest_edge": 2**30}
    processor.save_pretrained(directory)
    return directory


def conversation_batch(directory: Path, lengths: list[int], reply: int) -> dict[str, Any]:
    """Conversations of exactly `lengths` tokens as the data module serves them.

    Each has one picture, as large as fits, a question that fills up, and an answer of `reply` words.
    """
    collate = ConversationCollate(str(directory), "", 0)
    images = collate.processor.image_processor
    unit = images.patch_size * images.merge_size

    def item(number: int, rows: int, columns: int, words: int) -> Item:
        generator = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (rows * unit, columns * unit, 3), generator=generator, dtype=torch.uint8)
        sample = Sample(
            f"s{number}", ("lesion.png",), "", "", f"s{number}",
            question=f"What is it?{WORD * words}", reply=f"It is{WORD * reply}",
        )  # fmt: skip
        return Item(sample, [Image.fromarray(pixels.numpy())])

    least = int(collate([item(0, 1, 1, 0)])["conversation"]["attention_mask"].sum())
    items = []
    for number, length in enumerate(lengths):
        room = length - least + 1
        if room < 1:
            raise SystemExit(f"the text alone takes {least} tokens: raise --longest or lower --reply")
        rows = max(1, int(room**0.5))
        items.append(item(number, rows, room // rows, room - rows * (room // rows)))
    batch = collate(items)
    assert batch["conversation"]["attention_mask"].sum(1).tolist() == lengths
    return batch


def renewed(batch: dict[str, Any]) -> dict[str, Any]:
    """The same batch in tensors that were not seen before, so that nothing is remembered."""
    return batch | {"conversation": {name: value.clone() for name, value in batch["conversation"].items()}}


def trl_inputs(batch: dict[str, Any]) -> Inputs:
    """The same batch as TRL's collator serves it, in tensors of its own."""
    inputs = {name: value.clone() for name, value in batch["conversation"].items()}
    return inputs | {"labels": inputs["input_ids"].where(batch["loss_mask"], -100)}


def trl_side(policy: VLMBackbone, folder: str) -> SFTTrainer:
    """TRL's trainer on its own copy of the policy."""
    row = {"messages": [{"role": "user", "content": "unused"}], "images": []}
    return trl_trainer(policy, SFTTrainer, SFTConfig, [row], output_dir=folder, max_length=None)


def time_steps(directory: Path, batch: dict[str, Any], repeats: int, packing: bool) -> dict[str, Any]:
    """Steps of DermIQ and TRL in turn."""
    policy = load_policy(directory)
    with tempfile.TemporaryDirectory() as folder:
        module = SFTModule(policy, None, adamw, max_grad_norm=MAX_NORM, packing=packing)
        batches = [renewed(batch) for _ in range(repeats + 1)]
        return take_turns(module, batches, trl_side(policy, folder), lambda: trl_inputs(batch))


def compare(directory: Path, lengths: list[int], options: argparse.Namespace) -> dict[str, Any]:
    """A batch, and what packed and padded steps on it cost."""
    batch = conversation_batch(directory, lengths, options.reply)
    return {
        "lengths": lengths,
        "padding": 1 - float(batch["conversation"]["attention_mask"].float().mean()),
        "assistant_tokens": int(batch["loss_mask"].sum()),
        "packed": time_steps(directory, batch, options.repeats, packing=True),
        "padded": time_steps(directory, batch, options.repeats, packing=False),
        "memory": measure_memory(directory, lengths, options),
    }


def probe(directory: Path, path: str, lengths: list[int], reply: int) -> dict[str, Any]:
    """Peak memory of one forward and backward pass in this process, which does nothing else (Linux only)."""
    exact_malloc()
    policy = load_policy(directory)
    small, batch = (conversation_batch(directory, each, reply) for each in ([min(lengths)], lengths))
    with tempfile.TemporaryDirectory() as folder:
        trainer = trl_side(policy, folder) if path == "trl" else None

        def step(batch: dict[str, Any]) -> None:
            if trainer is not None:
                trainer.training_step(trainer.model, trl_inputs(batch), None)
            else:
                logprobs = packed_logprobs if path == "packed" else sequence_logprobs
                loss, _ = sft_loss(logprobs(policy, batch["conversation"], batch["loss_mask"]), batch["loss_mask"])
                loss.backward()

        step(small)  # what libraries allocate once, on first use
        before = resident("VmRSS")
        forget_peak()
        step(batch)
        peak = resident("VmHWM")
    return {"path": path, "before_mib": before, "peak_mib": peak, "growth_mib": peak - before}


def measure_memory(directory: Path, lengths: list[int], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Peaks of every path, each in a fresh process."""
    rows = []
    for path in ("packed", "padded", "trl"):
        command = [sys.executable, __file__, "--probe", path, "--model", str(directory), "--reply", str(options.reply)]
        command += ["--threads", str(options.threads), "--lengths", *map(str, lengths)]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(output.stdout.splitlines()[-1]))
    return rows


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Time one SFT step: DermIQ against TRL's SFTTrainer.")
    parser.add_argument("--longest", type=int, default=1100, help="tokens of the longest conversation")
    parser.add_argument("--shortest", type=float, default=0.25, help="the shortest of mixed lengths, as a share of it")
    parser.add_argument("--conversations", type=int, default=4, help="in a batch")
    parser.add_argument("--reply", type=int, default=64, help="words of the assistant")
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    parser.add_argument("--probe", help=argparse.SUPPRESS)  # the path whose memory this process measures
    parser.add_argument("--model", type=Path, help=argparse.SUPPRESS)  # for --probe: the directory made already
    parser.add_argument("--lengths", type=int, nargs="+", help=argparse.SUPPRESS)  # for --probe
    return parser.parse_args()


def main() -> None:
    """Measure, and print JSON."""
    options = parse()
    os.environ["CI"] = "1"  # TRL reports every trainer to its makers otherwise
    torch.set_num_threads(options.threads)
    if options.probe:
        print(json.dumps(probe(options.model, options.probe, options.lengths, options.reply)))
        return
    shares = torch.linspace(1.0, options.shortest, options.conversations)
    mixed = (shares * options.longest).round().long().tolist()
    with tempfile.TemporaryDirectory() as folder:
        directory = write_model(Path(folder))
        policy = load_policy(directory)
        result = {
            "machine": machine("torch", "transformers", "peft", "trl", "dermiq"),
            "settings": {name: vars(options)[name] for name in SETTINGS},
            "model": {
                "family": "qwen2_5_vl, random weights, float32",
                "parameters": sum(p.numel() for p in policy.vlm.parameters()),
                "trainable": sum(p.numel() for p in policy.trainable_parameters()),
            },
            "mixed_lengths": compare(directory, mixed, options),
            "equal_lengths": compare(directory, [options.longest] * options.conversations, options),
        }
    publish(result, options.out)


if __name__ == "__main__":
    main()
