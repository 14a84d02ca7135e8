"""Where no terminal shows a bar, a run says from time to time how far it is."""

import re

import pytest
from rich.console import Console

from dermiq.trainer.progress import ProgressLines

KEEP = "--trainer.callbacks+=dermiq.trainer.checkpointing.RunCheckpoint"
LINES = "[{class_path: dermiq.trainer.progress.ProgressLines, init_args: {seconds: 0}}]"


def lines(capsys):
    out = capsys.readouterr().out
    assert "\x1b" not in out
    return [line for line in out.splitlines() if re.match(r"(fit|validate|test|predict) \w+: ", line)]


def run(lab, subcommand, stage, root, *options):
    lab.run(subcommand, stage, root, "--trainer.enable_model_summary=false", f"--trainer.callbacks={LINES}", *options)


@pytest.mark.parametrize(
    ("stage", "metrics"),
    [
        ("SFTModule", r"loss \d+\.\d+"),
        ("GRPOModule", r"reward \d\S*, accuracy \d\S*, tokens_per_second \d+(\.\d+)?(e\+\d+)?"),
        pytest.param("DPOModule", r"loss \d\.\d+, accuracy \d\S*", marks=pytest.mark.slow),
    ],
)
def test_training_says_step_metrics_and_time_left(stage, metrics, lab, tmp_path, capsys):
    run(lab, "fit", stage, tmp_path / "mine", "--trainer.max_steps=3")
    found = lines(capsys)
    assert len(found) == 3
    for step, line in enumerate(found, start=1):
        assert re.fullmatch(rf"fit mine: step {step} of 3, {metrics}, 0:00:\d\d left", line), line
    assert found[-1].endswith("0:00:00 left")


def test_epochs_are_an_end_too(lab, tmp_path, capsys):
    limits = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1"]
    run(lab, "fit", "SFTModule", tmp_path / "mine", *limits)
    found = lines(capsys)
    steps = [line for line in found if "step" in line]
    assert [line.split(", loss")[0] for line in steps] == [
        "fit mine: epoch 0, step 1",
        "fit mine: epoch 0, step 2",
        "fit mine: epoch 1, step 3",
        "fit mine: epoch 1, step 4",
    ]
    assert all(line.endswith(" left") for line in steps)
    assert found.count("fit mine: validation batch 1 of 1") == 2


@pytest.mark.parametrize("subcommand", ["test", "validate", "predict"])
def test_an_evaluation_says_batches_and_time_left(subcommand, lab, tmp_path, capsys):
    limits = [f"--trainer.limit_{name}_batches=3" for name in ("test", "val", "predict")]
    run(lab, subcommand, "SFTModule", tmp_path / "mine", "--data.eval_batch_size=2", *limits)
    what = "validation batch" if subcommand == "validate" else "batch"
    found = lines(capsys)
    assert len(found) == 3
    for batch, line in enumerate(found, start=1):
        assert re.fullmatch(rf"{subcommand} mine: {what} {batch} of 3, 0:00:\d\d left", line), line


def test_by_default_it_is_one_line_a_minute(lab, tmp_path, capsys, monkeypatch):
    """The clock here stands still for ten steps, and a minute passes with the eleventh."""
    assert ProgressLines().seconds == 60
    now = [0.0]
    monkeypatch.setattr("dermiq.trainer.progress.time.monotonic", lambda: now[0])
    original = ProgressLines.on_train_batch_end

    def tick(self, trainer, *arguments):
        now[0] += 25.0
        original(self, trainer, *arguments)

    monkeypatch.setattr(ProgressLines, "on_train_batch_end", tick)
    lab.run("fit", "SFTModule", tmp_path / "mine", "--trainer.max_steps=7")
    found = lines(capsys)
    assert [re.search(r"step (\d) of 7", line)[1] for line in found] == ["3", "6"]
    assert found[0].endswith("0:01:40 left") and found[1].endswith("0:00:25 left")


def test_time_left_is_of_what_is_left_after_a_resume(lab, tmp_path, capsys, monkeypatch):
    lab.run("fit", "SFTModule", tmp_path / "mine", "--trainer.max_steps=2")
    capsys.readouterr()
    now = [0.0]
    monkeypatch.setattr("dermiq.trainer.progress.time.monotonic", lambda: now[0])
    original = ProgressLines.on_train_batch_end

    def tick(self, trainer, *arguments):
        now[0] += 10.0
        original(self, trainer, *arguments)

    monkeypatch.setattr(ProgressLines, "on_train_batch_end", tick)
    run(lab, "fit", "SFTModule", tmp_path / "mine", "--trainer.max_steps=5", "--ckpt_path=last", KEEP)
    assert [line.rsplit(", ", 1)[1] for line in lines(capsys)] == ["0:00:20 left", "0:00:10 left", "0:00:00 left"]


@pytest.mark.slow
def test_a_limit_on_time_is_an_end_too(lab, tmp_path, capsys):
    run(lab, "fit", "SFTModule", tmp_path / "mine", "--trainer.max_epochs=9000", "--trainer.max_time=00:00:00:02")
    found = lines(capsys)
    assert found and all(re.search(r"0:00:0[0-2] left$", line) for line in found)


@pytest.mark.parametrize("kind", ["is_terminal", "is_jupyter"])
def test_where_a_bar_is_shown_nothing_is_doubled(kind, lab, tmp_path, capsys, monkeypatch):
    original = Console.__init__

    def shown(self, *arguments, **options):
        original(self, *arguments, **options)
        if kind == "is_jupyter":
            self.is_jupyter = True
        else:
            self._force_terminal = True

    monkeypatch.setattr("dermiq.trainer.progress.Console.__init__", shown)
    run(lab, "fit", "SFTModule", tmp_path / "mine", "--trainer.max_steps=2", "--trainer.enable_progress_bar=false")
    assert lines(capsys) == []


def test_the_first_process_alone_speaks(lab, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("lightning.pytorch.Trainer.is_global_zero", False)
    run(lab, "predict", "SFTModule", tmp_path / "mine")
    assert lines(capsys) == []


def test_a_negative_time_is_refused():
    with pytest.raises(ValueError, match="at least 0"):
        ProgressLines(-1)
