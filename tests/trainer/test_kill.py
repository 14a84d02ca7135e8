"""Kill -9 at any moment: what goes on afterwards ends as if nothing had happened, and no file is half-written."""

import json
import shutil
import signal

import pytest

from dermiq.cli import main
from dermiq.run_directory import RunDirectory
from support.kills import history, survivors
from support.runs import STAGES, checkpoint, different

KILLS = 10
OPTIONS = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=4", "--data.on_bad_image=skip"]
VALIDATION = ["--trainer.limit_val_batches=1", "--trainer.val_check_interval=2"]
CALLBACKS = """[
  {class_path: dermiq.trainer.checkpointing.RunCheckpoint, init_args: {every_n_train_steps: 3}},
  {class_path: dermiq.trainer.checkpointing.GracefulInterrupt},
  {class_path: dermiq.trainer.callbacks.LogCompletions, init_args: {every_n_steps: 2}},
  {class_path: dermiq.trainer.callbacks.WritePredictions},
  {class_path: dermiq.trainer.callbacks.SaveMetrics},
  {class_path: dermiq.trainer.callbacks.ReportSkipped},
]"""


@pytest.fixture(scope="module")
def photographs(lab, tmp_path_factory):
    """The photographs, one of them cut off."""
    root = shutil.copytree(lab.photographs, tmp_path_factory.mktemp("kill") / "photographs")
    cut = min(root.glob("*/*.jpg"), key=lambda path: path.name)
    cut.write_bytes(cut.read_bytes()[:300])
    return root


@pytest.fixture
def own_ctrl_c():
    """Lightning ignores Ctrl-C for good once it has handled one."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def files(root, *patterns):
    return {path.relative_to(root): path.read_bytes() for p in patterns for path in root.glob(p) if path.is_file()}


def assert_same_files(whole, killed, *patterns):
    first, second = files(whole, *patterns), files(killed, *patterns)
    assert first.keys() == second.keys() != set()
    assert [path for path in first if first[path] != second[path]] == []


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_killed_training_ends_as_an_undisturbed_one(stage, lab, photographs, tmp_path):
    """Start-up, steps, validations and savings are among the moments; adapter, checkpoint and metrics are the same."""

    def fit(root):
        own = [f"--model.reference_cache={root / 'reference.jsonl'}"] if stage == "DPOModule" else []
        source = f"--data.sources={json.dumps({'all': lab.source(stage, photographs)})}"
        resume = ["--ckpt_path=last"] if RunDirectory(root).last_checkpoint.exists() else []
        callbacks = f"--trainer.callbacks={CALLBACKS}"
        return lab.arguments("fit", stage, root, source, callbacks, *OPTIONS, *VALIDATION, *own, *resume)

    whole = tmp_path / "whole"
    for killed in survivors(fit, whole, KILLS, seed=stage):
        assert different(checkpoint(whole), checkpoint(killed)) == []
        assert len(history(whole)) == 12 and different(history(whole), history(killed)) == []
        assert_same_files(whole, killed, "adapter/*", "completions/*", "*.txt", "*.jsonl")
        aside = {"earlier"}  # what was logged before a first checkpoint: a new beginning does not go on with it
        assert {path.name for path in whole.iterdir()} == {path.name for path in killed.iterdir()} - aside


@pytest.mark.slow
def test_ctrl_c_before_a_validation_waits_for_it(lab, tmp_path, own_ctrl_c):
    """It is a part of the step, as a resumed run does not make up for it."""
    options = [*OPTIONS, *VALIDATION]
    lab.run("fit", "SFTModule", tmp_path / "whole", *options)
    interrupted = lab.arguments("fit", "SFTModule", tmp_path / "parts", *options)
    with pytest.raises(SystemExit) as stopped:
        main([*interrupted, "--trainer.callbacks+=support.parts.InterruptAt", "--trainer.callbacks.batch=1"])
    assert stopped.value.code == 130 and (2, True) not in history(tmp_path / "parts")
    assert checkpoint(tmp_path / "parts")["global_step"] == 2 and len(history(tmp_path / "parts")) == 3
    lab.run("fit", "SFTModule", tmp_path / "parts", *options, "--ckpt_path=last")
    assert different(history(tmp_path / "whole"), history(tmp_path / "parts")) == []
    assert different(checkpoint(tmp_path / "whole"), checkpoint(tmp_path / "parts")) == []


@pytest.mark.slow
def test_a_killed_evaluation_is_done_again(lab, tmp_path):
    def test(root):
        return lab.arguments("test", "SFTModule", root, "--data.eval_batch_size=2")

    whole = tmp_path / "whole"
    for killed in survivors(test, whole, KILLS // 2, seed="test"):
        assert_same_files(whole, killed, "**/*")


@pytest.mark.slow
def test_killed_pairs_are_those_of_an_undisturbed_run(pairs_config, tmp_path):
    def predict(root):
        return ["predict", f"--config={pairs_config}", f"--trainer.default_root_dir={root}"]

    whole = tmp_path / "whole"
    for killed in survivors(predict, whole, KILLS, seed="pairs"):
        assert (whole / "preferences.jsonl").read_text() and (whole / "candidates.jsonl").read_text()
        assert_same_files(whole, killed, "**/*")
