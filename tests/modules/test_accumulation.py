"""Batches of one optimiser step: what each of them counts, whatever their number, sizes and lengths."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from dermiq.cli import run
from dermiq.modules.accumulation import Window
from dermiq.objectives.losses import constant_length, counted, per_sequence, per_token
from support.runs import STAGES, Lab

RECORDED = [
    "--model.optimizer=support.parts.RecordingSGD",
    "--model.optimizer.lr=0.0",
    "--model.max_grad_norm=null",
]
RECORDED += ["--trainer.max_epochs=1"]
LENGTHS = (1, 40, 3, 2, 60, 1, 25, 4)


def option(stage: str, batches: int) -> str:
    """Accumulate so many batches."""
    return f"--model.accumulate_batches={batches}" if stage == "GRPOModule" else accumulated(batches)


def accumulated(batches: int) -> str:
    return f"--trainer.accumulate_grad_batches={batches}"


def gradients(lab: Lab, stage: str, root: Path, *more: str) -> list[torch.Tensor]:
    """The gradient of each step, flat."""
    arguments = lab.arguments("fit", stage, root, *RECORDED, *more)
    cli = run(arguments)
    return [torch.cat([part.flatten() for part in step]) for step in cli.trainer.optimizers[0].steps]


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    """The largest difference, relative to the largest value."""
    return float((first - second).abs().max() / second.abs().max())


@pytest.fixture(scope="module")
def replies(tmp_path_factory) -> str:
    """The option that trains on text alone, with replies of very different length."""
    folder = tmp_path_factory.mktemp("replies")
    sources = {}
    for split in ("train", "val", "test"):
        path = folder / f"{split}.jsonl"
        path.write_text("".join(json.dumps(talk(split, words)) + "\n" for words in LENGTHS))
        sources[split] = {"class_path": "dermiq.datamodules.sources.Conversations", "init_args": {"path": str(path)}}
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump({"data": {"init_args": {"sources": sources}}}))
    return f"--config={path}"


def talk(split: str, words: int) -> dict[str, object]:
    """A row with one question, and a reply of so many words."""
    reply = " ".join(["brown", "scaly", "wheal", "fades"][word % 4] for word in range(words))
    asked = {"role": "user", "content": f"What is it in {split}, in {words}?"}
    return {"messages": [asked, {"role": "assistant", "content": reply}]}


@pytest.mark.parametrize("stage", STAGES)
def test_the_last_window_of_an_epoch_counts_in_full(stage, lab, tmp_path):
    """Seven batches, six to a step: the second step is the seventh batch's own, and the first the mean of six."""
    alone = gradients(lab, stage, tmp_path / "alone", option(stage, 1))
    found = gradients(lab, stage, tmp_path / "found", option(stage, 6))
    assert (len(alone), len(found)) == (7, 2)
    assert apart(found[1], alone[6]) < 1e-5
    if stage != "SFTModule":  # whose batches have other numbers of tokens
        assert apart(found[0], torch.stack(alone[:6]).mean(dim=0)) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["GRPOModule", "DPOModule"])
@pytest.mark.parametrize("batches", [2, 4, 5, 7, 100])
def test_windows_of_any_size(stage, batches, lab, tmp_path):
    """Each step is the mean of its batches, in the second epoch too, also where a limit ends the epoch."""
    more = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=5"] if batches == 2 else []
    alone = gradients(lab, stage, tmp_path / "alone", option(stage, 1), *more)
    found = gradients(lab, stage, tmp_path / "found", option(stage, batches), *more)
    size = 5 if more else 7
    epochs = [alone[start : start + size] for start in range(0, len(alone), size)]
    windows = [epoch[start : start + batches] for epoch in epochs for start in range(0, size, batches)]
    for step, window in zip(found, windows, strict=True):
        assert apart(step, torch.stack(window).mean(dim=0)) < 1e-5


@pytest.mark.parametrize("stage", ["GRPOModule", pytest.param("SFTModule", marks=pytest.mark.slow)])
def test_a_validation_leaves_an_open_window_alone(stage, lab, tmp_path):
    """Lightning clears the gradients before it."""
    validated = ["--trainer.limit_val_batches=1", "--trainer.val_check_interval=1"]
    alone = gradients(lab, stage, tmp_path / "alone", option(stage, 3), "--trainer.limit_train_batches=4")
    found = gradients(lab, stage, tmp_path / "found", option(stage, 3), "--trainer.limit_train_batches=4", *validated)
    assert len(alone) == 2 and all(map(torch.equal, alone, found))


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["GRPOModule", "DPOModule"])
@pytest.mark.filterwarnings("ignore")  # Lightning's of steps without a loss, ours of skipped images
def test_batches_without_a_readable_image_count_nothing(stage, lab, tmp_path):
    """At the beginning, within and at the end of a window, and where there is nothing else in it."""
    shutil.copytree(lab.photographs, tmp_path / "photographs")
    mine = Lab(tmp_path, tmp_path / "photographs", lab.family_dir)
    for place, path in enumerate(sorted(mine.photographs.rglob("*.jpg"))):
        if place % 4 == 1:
            path.write_bytes(b"no JPEG")
    options = ["--data.batch_size=1", "--data.on_bad_image=skip"]
    alone = gradients(mine, stage, tmp_path / "alone", option(stage, 1), *options)
    found = gradients(mine, stage, tmp_path / "found", option(stage, 3), *options)
    windows = [alone[start : start + 3] for start in range(0, len(alone), 3)]
    read = [[gradient for gradient in window if gradient.any()] for window in windows]
    assert {len(window) for window in read} >= {1, 2}, "the case says nothing"
    for step, window in zip(found, read, strict=True):
        assert not window or apart(step, torch.stack(window).mean(dim=0)) < 1e-5


@pytest.mark.parametrize("packing", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_supervised_batches_are_one_large_batch(packing, replies, lab, tmp_path):
    options = [f"--model.packing={packing}".lower(), "--data.group_by_length=false"]
    runs = {
        (size, batches): gradients(
            lab,
            "SFTModule",
            tmp_path / f"{size}x{batches}",
            replies,
            *options,
            f"--data.batch_size={size}",
            accumulated(batches),
        )
        for size, batches in ((4, 1), (1, 4), (2, 2), (1, 3))
    }
    assert [len(steps) for steps in runs.values()] == [2, 2, 2, 3]
    for other in ((1, 4), (2, 2)):
        for step, whole in zip(runs[other], runs[4, 1], strict=True):
            assert apart(step, whole) < 1e-5
    assert apart(runs[1, 3][0], runs[4, 1][0]) > 0.01, "the case says nothing"


@pytest.mark.parametrize(
    ("counts", "means"),
    [
        ([[3.0]], [2.0]),
        ([[1.0], [99.0]], [2.0, -1.0]),
        ([[0.0], [5.0]], [0.0, 4.0]),
        ([[5.0], [0.0], [0.0]], [3.0, 0.0, 0.0]),
        ([[0.0], [0.0]], [0.0, 0.0]),
        ([[7.0], [1.0], [2.0], [7.0]], [1.0, 2.0, 3.0, 4.0]),
    ],
)
def test_a_window_by_hand(counts, means):
    """Batches without a count come first, last, or are all there are."""
    window = Window()
    counts = torch.tensor(counts).flatten()
    found = sum(mean * count / window.add(count) for mean, count in zip(means, counts, strict=True)) * window.scale
    expected = float((torch.tensor(means) * counts).sum() / counts.sum().clamp(min=1))
    assert float(found) == pytest.approx(expected, rel=1e-6)
    assert Window(**window.record()).scale == window.scale


def test_what_token_weights_divide_by():
    """Completions, or tokens; a function of one's own counts by what it is normalised by, and else completions."""
    mask = torch.arange(9) < torch.tensor([4, 9, 1])[:, None]
    for weights in (constant_length, per_sequence):
        assert counted(weights, mask, 9) == 3
    assert counted(per_token, mask, 9) == 14
    assert counted(lambda mask, _: mask.float(), mask, 9) == 3
    long = torch.ones(12, 4096, dtype=torch.bool)
    assert counted(per_token, long, 4096) == 12 * 4096 and counted(constant_length, long, 4096) == 12


@pytest.mark.parametrize("weights", [constant_length, per_sequence, per_token])
def test_windows_of_completions_are_one_batch(weights):
    """The weights of a batch's tokens are those of the whole window, whichever batches it is cut into."""
    mask = torch.arange(6) < torch.tensor([1, 6, 2, 3, 5, 1, 4])[:, None]
    window, parts = Window(), []
    for batch in mask.split([2, 1, 3, 1]):
        count = counted(weights, batch, 6)
        parts.append(weights(batch, 6) * count / window.add(count))
    torch.testing.assert_close(torch.cat(parts) * window.scale, weights(mask, 6))
