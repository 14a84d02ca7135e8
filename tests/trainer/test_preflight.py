"""The worst-case step before training: what it finds, what it says, and that it leaves no trace."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from torch import nn

import dermiq.trainer.preflight
from dermiq.cli import main
from dermiq.datamodules import ConversationDataModule, DermDataModule
from dermiq.datamodules.sources import Conversations
from dermiq.modules import GRPOModule, SFTModule
from dermiq.policy.backbone import VLMBackbone
from dermiq.trainer.preflight import longest_training, memory
from dermiq.trainer.preflight.advice import advised
from dermiq.trainer.preflight.longest import longest_samples
from dermiq.trainer.preflight.memory import optimiser_state
from support.processes import shell
from support.runs import adapter, checkpoint, different, logged
from support.small_data import write_jpeg

TWO_STEPS = "--trainer.max_steps=2"
SMALLER = "Lower, in this order:"
# Each consumes random numbers, keeps something between steps, or exchanges it.
DELICATE = {
    "SFTModule": ["--model.backbone.lora.dropout=0.5", "--trainer.accumulate_grad_batches=2"],
    "DPOModule": ["--model.backbone.lora.dropout=0.5"],
    "GRPOModule": [
        "--model.accumulate_batches=2",
        "--model.reference_sync_every=1",
        "--model.backbone.lora.dropout=0.5",
    ],
}


@pytest.fixture(scope="module")
def grpo(lab, tmp_path_factory):
    """A run with a preflight: its directory, its parts, what it printed, and its rollouts, the preflight's first."""
    root, printed, rollouts = tmp_path_factory.mktemp("grpo"), io.StringIO(), []
    original, load = GRPOModule.training_step, VLMBackbone.load

    def load_restless(self: VLMBackbone) -> None:
        """A policy that ends a completion at nearly every other token."""
        load(self)
        self.stop_ids = tuple(range(200, 400))

    def training_step(self: GRPOModule, *arguments: Any) -> Any:
        outputs = original(self, *arguments)
        rollouts.append(outputs["rollout"])
        return outputs

    with pytest.MonkeyPatch.context() as patch, redirect_stderr(printed):
        patch.setattr(GRPOModule, "training_step", training_step)
        patch.setattr(VLMBackbone, "load", load_restless)
        options = [TWO_STEPS, "--model.sampling.stop=[e, a]", *DELICATE["GRPOModule"]]
        cli = lab.run("fit", "GRPOModule", root / "with", *options, "--preflight")
        lab.run("fit", "GRPOModule", root / "without", *options)
    return SimpleNamespace(root=root, cli=cli, printed=printed.getvalue(), rollouts=rollouts)


def assert_same_run(first: Path, second: Path) -> None:
    """Weights, optimiser, loops, random states and metrics, bit for bit."""
    assert logged(first) == logged(second) != []
    assert different(adapter(first), adapter(second)) == []
    assert different(checkpoint(first), checkpoint(second)) == []
    configs = [yaml.safe_load((root / "config.yaml").read_text()) for root in (first, second)]
    for config in configs:
        del config["trainer"]["default_root_dir"]
    assert configs[0] == configs[1]


def test_a_grpo_run_with_it_is_the_run_without_it(grpo):
    assert_same_run(grpo.root / "with", grpo.root / "without")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["SFTModule", "DPOModule"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_a_run_with_it_is_the_run_without_it(stage, precision, lab, tmp_path):
    for name, more in (("with", ["--preflight"]), ("without", [])):
        options = [TWO_STEPS, f"--trainer.precision={precision}", *DELICATE[stage], *more]
        lab.run("fit", stage, tmp_path / name, *options)
    assert_same_run(tmp_path / "with", tmp_path / "without")


@pytest.mark.slow
def test_the_references_cache_does_not_see_it(lab, tmp_path):
    caches = []
    for name, more in (("with", ["--preflight"]), ("without", [])):
        caches.append(tmp_path / f"{name}.jsonl")
        cache = f"--model.reference_cache={caches[-1]}"
        lab.run("fit", "DPOModule", tmp_path / name, "--trainer.max_steps=1", cache, *more)
    assert caches[0].read_text() == caches[1].read_text() and len(caches[0].read_text().splitlines()) == 3


@pytest.mark.slow
def test_a_resumed_run_with_it_is_the_whole_run(lab, tmp_path):
    options = DELICATE["SFTModule"]
    lab.run("fit", "SFTModule", tmp_path / "whole", *options, "--trainer.max_steps=3")
    lab.run("fit", "SFTModule", tmp_path / "parts", *options, "--trainer.max_steps=1")
    resumed = ["--trainer.max_steps=3", "--preflight", "--ckpt_path=last"]
    lab.run("fit", "SFTModule", tmp_path / "parts", *options, *resumed)
    assert logged(tmp_path / "parts") == logged(tmp_path / "whole")
    assert different(adapter(tmp_path / "parts"), adapter(tmp_path / "whole")) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "strategy"),
    [
        ("SFTModule", "=ddp"),
        ("GRPOModule", "=ddp"),
        ("SFTModule", ".class_path=dermiq.trainer.sharding.ShardedStrategy"),
    ],
)
def test_two_processes_do_not_wait_for_each_other(stage, strategy, lab, tmp_path):
    options = ["--trainer.max_steps=1", f"--trainer.strategy{strategy}", "--trainer.devices=2"]
    for name, more in (("with", ["--preflight"]), ("without", [])):
        shell(lab.arguments("fit", stage, tmp_path / name, *options, *more))
    assert logged(tmp_path / "with") == logged(tmp_path / "without")
    assert different(adapter(tmp_path / "with"), adapter(tmp_path / "without")) == []


def test_every_completion_is_written_to_its_end(grpo):
    """Neither stop tokens nor stopping texts end one in the preflight, as they do in training."""
    lengths = [rollout.lengths.tolist() for rollout in grpo.rollouts]
    first, trained, without = lengths[0], lengths[1:5], lengths[5:]
    assert first == [[5] * 3] * 2
    assert trained == without and len(trained) == 4 and all(min(map(min, groups)) < 5 for groups in trained)


def test_it_says_what_the_step_takes(grpo):
    start = grpo.printed.index("Preflight: one training step\n")
    lines = [line.split(maxsplit=1) for line in grpo.printed[start:].splitlines()[1:9]]
    said = {name: text for name, text in lines if name != "-"}
    assert said["samples"] == "the 2 longest of 14 looked at of 14"
    assert said["prompts"].startswith("2 of ")
    assert said["prompts"].endswith(f" tokens, 2 images, the longest of sample {grpo.rollouts[0].samples[0].id!r}")
    assert said["completions"] == "6 of 5 tokens"
    assert " of " in said["peak"] and "main memory" in said["peak"]
    assert said["headroom"].endswith("%)") and said["time"].endswith("at most for all training steps")
    assert SMALLER.lower() not in grpo.printed.lower()
    assert grpo.printed.count("Preflight") == 1
    assert "\x1b" not in grpo.printed[start : grpo.printed.index("\n", grpo.printed.index("  time"))]  # no terminal


def test_what_it_advises_is_a_command_line(grpo, lab, tmp_path, capsys):
    parts = grpo.cli
    advice = [each.options for each in advised(parts.trainer, parts.model, parts.datamodule)]
    options = [option for options in advice[:-1] for option in options.split()]
    assert not [option for option in options if "init_args" in option]
    with pytest.raises(SystemExit) as stopped:
        main(lab.arguments("fit", "GRPOModule", tmp_path, *options, "--print_config"))
    assert stopped.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    model, backbone = config["model"]["init_args"], config["model"]["init_args"]["backbone"]["init_args"]
    # Before: 6 completions of 5 tokens, 20 tokens a pass, batches of 2, two of them a step.
    assert model["tokens_per_pass"] == 10 and model["engine"]["init_args"]["rows_per_pass"] == 3
    assert config["data"]["init_args"]["batch_size"] == 1 and model["accumulate_batches"] == 4
    assert backbone["gradient_checkpointing"] and backbone["load_in_4bit"]
    assert model["group_size"] == 2 and model["sampling"]["max_new_tokens"] == 2


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command line says on stderr as it exits with code 2."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error[error.index("dermiq: ") :]


def test_a_step_that_runs_out_of_memory_stops_with_advice(lab, tmp_path, capsys, monkeypatch):
    def training_step(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr(SFTModule, "training_step", training_step)
    error = refusal(lab.arguments("fit", "SFTModule", tmp_path, "--preflight"), capsys)
    first, *advice = error.splitlines()
    assert first.startswith("dermiq: A training step on the longest samples (conversations 2 of ")
    assert "does not fit into memory: it runs out of it" in first and first.endswith(SMALLER)
    assert advice[0].startswith("  --data.batch_size=1 --trainer.accumulate_grad_batches=2  (")
    assert advice[1].startswith("  --model.backbone.gradient_checkpointing=true  (")
    assert not (tmp_path / "adapter").exists() and not (tmp_path / "checkpoints").exists()


@pytest.mark.slow
def test_other_errors_pass(lab, tmp_path, monkeypatch):
    def training_step(*_: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(SFTModule, "training_step", training_step)
    with pytest.raises(RuntimeError, match="something else"):
        lab.run("fit", "SFTModule", tmp_path, "--preflight")


@pytest.mark.slow
def test_a_step_beyond_the_containers_limit_stops(lab, tmp_path, capsys, monkeypatch):
    (tmp_path / "memory.max").write_text("1048576\n")
    monkeypatch.setattr(memory, "_CONTAINERS", (tmp_path / "none", tmp_path / "memory.max"))
    error = refusal(lab.arguments("fit", "DPOModule", tmp_path / "run", "--preflight"), capsys)
    assert "it takes " in error and "there are 1.00 MiB (main memory" in error and SMALLER in error


@pytest.mark.slow
def test_little_headroom_is_a_warning(lab, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(dermiq.trainer.preflight, "TIGHT", 1.0)
    lab.run("fit", "SFTModule", tmp_path, "--preflight", "--trainer.max_steps=1")
    printed = capsys.readouterr().err
    assert "\nLess than 100% of it is left. If training runs out, lower, in this order:\n  --data" in printed
    assert (tmp_path / "adapter").is_dir()


def test_only_fit_has_the_flag(lab, tmp_path, capsys):
    for subcommand, code in (("fit", 0), ("test", 2)):
        with pytest.raises(SystemExit) as stopped:
            main(lab.arguments(subcommand, "SFTModule", tmp_path, "--preflight", "--print_config"))
        assert stopped.value.code == code
    assert "preflight: true" in capsys.readouterr().out


@pytest.fixture(scope="module")
def data(family_dir, tmp_path_factory) -> DermDataModule:
    """60 conversations, most with a picture; what is long by text is not what is long by tokens."""
    folder = tmp_path_factory.mktemp("conversations")
    rows = []
    for number in range(60):
        name, words = f"{number}.jpg", 1 + number * 7 % 60
        write_jpeg(folder / name, number, (40 + 8 * (number * 11 % 13), 48))
        said = [
            {"role": "user", "content": "<image>" * (number % 4 > 0) + "What is it?"},
            {"role": "assistant", "content": "A brown spot. " * words},
        ]
        rows.append({"id": str(number), "images": [name] * (number % 4 > 0), "messages": said})
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = Conversations(str(folder / "rows.jsonl"))
    made = ConversationDataModule(
        str(family_dir("qwen2_5_vl")), {"all": source}, fractions={"train": 1.0}, batch_size=3
    )
    made.setup("fit")
    return made


def test_the_longest_samples_are_found(data):
    longest = longest_samples(data)
    dataset, collate = data.splits["train"], data.train_collate()
    tokens = [collate([dataset[row]])["conversation"]["input_ids"].numel() for row in range(60)]
    assert (longest.looked_at, longest.of) == (60, 60)
    assert [tokens[row] for row in longest.rows] == sorted(tokens, reverse=True)[:3]
    characters = data.splits["train"].source.table().take(dataset.indices).integers("length")
    assert int(characters.argmax()) != longest.rows[0]  # so that encoding them was worth it


def test_of_many_samples_some_are_looked_at(data):
    longest = longest_samples(data, candidates=16)
    assert (longest.looked_at, longest.of, len(longest.rows)) == (16, 60, 3)
    assert longest == longest_samples(data, candidates=16)


class Alone:
    """As much of a module as has an optimiser."""

    def __init__(self, optimizer: Any) -> None:
        self.make_optimizer = optimizer
        self.weights = [nn.Parameter(torch.ones(8, 16)), nn.Parameter(torch.ones(3))]
        self.backbone = SimpleNamespace(trainable_parameters=lambda: self.weights)


@pytest.mark.parametrize("optimizer", [torch.optim.AdamW, torch.optim.SGD, torch.optim.RMSprop])
def test_the_optimisers_state_is_what_a_step_makes(optimizer):
    module = Alone(optimizer)
    expected = optimiser_state(module)
    assert all((weight == 1).all() and weight.grad is None for weight in module.weights)
    made = optimizer(module.weights)
    for weight in module.weights:
        weight.grad = torch.ones_like(weight)
    made.step()
    kept = [value.nbytes for state in made.state.values() for value in state.values()]
    assert expected == sum(kept)


def test_an_optimiser_that_needs_real_weights_counts_as_adam():
    assert optimiser_state(Alone(torch.optim.Adafactor)) == 2 * 4 * (8 * 16 + 3)


@pytest.mark.parametrize(
    ("steps", "epochs", "limit", "batches"),
    [(10, 1, 1.0, 7), (3, 5, 1.0, 6), (-1, 2, 1.0, 14), (-1, 2, 3, 6), (-1, -1, 1.0, None)],
)
def test_how_long_training_takes_at_most(steps, epochs, limit, batches):
    trainer = SimpleNamespace(max_steps=steps, max_epochs=epochs, limit_train_batches=limit)
    data = SimpleNamespace(train_dataloader=lambda: range(7))
    seconds = longest_training(trainer, SimpleNamespace(accumulated_batches=2), data, 0.5)
    assert seconds == (None if batches is None else 0.5 * batches)


def test_a_gpus_memory_is_what_is_free_and_what_the_process_has_already(monkeypatch):
    """With PyTorch's own counters stood in for, as there may be no GPU."""
    counters = {
        "mem_get_info": (6 * memory.GIB, 16 * memory.GIB),
        "memory_reserved": 2 * memory.GIB,
        "max_memory_reserved": 5 * memory.GIB,
        "max_memory_allocated": 4 * memory.GIB,
        "get_device_name": "Card",
        "reset_peak_memory_stats": None,
        "synchronize": None,
    }
    for name, value in counters.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value)
    card = memory._DeviceMemory(torch.device("cuda"))
    assert card.limit == 8 * memory.GIB and card.peak() == 4 * memory.GIB
    assert card.name == "Card; PyTorch reserved 5.00 GiB"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("stage", ["SFTModule", "GRPOModule", "DPOModule"])
def test_on_a_gpu_the_peak_is_the_devices(stage, lab, tmp_path, capsys):
    lab.run("fit", stage, tmp_path, "--trainer.accelerator=gpu", "--trainer.max_steps=1", "--preflight")
    printed = capsys.readouterr().err
    assert torch.cuda.get_device_name() in printed and "PyTorch reserved" in printed
