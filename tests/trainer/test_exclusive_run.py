"""A run directory belongs to one run: what would mix two is refused, locked or set aside, and nothing is lost."""

import errno
import fcntl
import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest

from dermiq.cli import main
from dermiq.report.stages import read_curves
from dermiq.schema import TrainingError
from dermiq.trainer import exclusive_run
from dermiq.trainer.exclusive_run import Command, ExclusiveRun, Lock, set_aside
from support.runs import adapter, checkpoint, different

LOCK = ".run.lock"
ONE = "--trainer.max_steps=1"
TWO = "--trainer.max_steps=2"
TESTED = ("metrics.json", "predictions.parquet", "confusion.csv", "thumbnails.parquet")


def refusal(capsys, arguments):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def files(root, but=()):
    """Every file below a directory, by its path there."""
    found = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    return {name: content for name, content in found.items() if not name.startswith(but)}


@pytest.fixture(scope="module")
def trained(lab, tmp_path_factory):
    """A run of one step, tested; to copy."""
    root = tmp_path_factory.mktemp("trained") / "run"
    lab.run("fit", "SFTModule", root, ONE)
    lab.run("test", "SFTModule", root, "--ckpt_path=last", "--trainer.limit_test_batches=1")
    return root


@pytest.fixture
def run(trained, tmp_path):
    """A run of one step, tested."""
    return shutil.copytree(trained, tmp_path / "run")


def test_training_anew_over_a_run_is_refused(run, lab, capsys):
    before = files(run)
    message = refusal(capsys, lab.arguments("fit", "SFTModule", run, ONE))
    assert message.startswith(f"dermiq: {run} holds a run already. Go on with it by --ckpt_path=last")
    assert (
        "--trainer.default_root_dir" in message and "--start_over" in message and str(run / "earlier" / "1") in message
    )
    assert files(run) == before


def test_an_adapter_without_its_checkpoint_is_not_trained_over(run, lab, capsys):
    shutil.rmtree(run / "checkpoints")
    before = files(run)
    message = refusal(capsys, lab.arguments("fit", "SFTModule", run, ONE))
    assert "holds a run already. Train in another directory" in message and "--ckpt_path" not in message
    assert files(run) == before


def test_starting_over_moves_the_earlier_run_whole(run, lab, caplog):
    """What is no part of a run stays, and the new record does not say how it was begun."""
    (run / "notes.txt").write_text("of mine")
    before = files(run, but="notes.txt")
    lab.run("fit", "SFTModule", run, TWO, "--start_over")
    assert files(run / "earlier" / "1") == before
    assert f"The earlier run in {run}: moved to {run / 'earlier' / '1'}." in caplog.text
    assert checkpoint(run)["global_step"] == 2 and checkpoint(run / "earlier" / "1")["global_step"] == 1
    assert (run / "notes.txt").read_text() == "of mine" and not [name for name in TESTED if (run / name).exists()]
    assert read_curves(run).stretches == ((0, 0), (1, 1))
    assert "start_over" not in (run / "config.yaml").read_text()
    lab.run("fit", "SFTModule", run, ONE, "--start_over")
    assert (run / "earlier" / "2" / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_starting_over_without_an_earlier_run(lab, tmp_path):
    lab.run("fit", "SFTModule", tmp_path / "run", ONE, "--start_over")
    assert not (tmp_path / "run" / "earlier").exists()


def test_starting_over_and_going_on_are_two_things(run, lab, capsys):
    message = refusal(capsys, lab.arguments("fit", "SFTModule", run, ONE, "--start_over", "--ckpt_path=last"))
    assert "leave one of them out" in message and (run / "checkpoints" / "last.ckpt").is_file()


def test_starting_over_from_what_it_would_move_is_refused(run, lab, capsys):
    own = f"--model.backbone.adapter_path={run / 'adapter'}"
    message = refusal(capsys, lab.arguments("fit", "SFTModule", run, ONE, "--start_over", own))
    assert f"This run needs {run / 'adapter'}" in message and (run / "adapter").is_dir()


def test_the_checkpoint_of_another_directory_does_not_excuse(run, lab, trained, capsys):
    other = trained / "checkpoints" / "last.ckpt"
    message = refusal(capsys, lab.arguments("fit", "SFTModule", run, TWO, f"--ckpt_path={other}"))
    assert f"{run} holds another run than {other} is of." in message


def test_going_on_sets_aside_the_results_of_the_adapter_before(run, lab, caplog):
    before = {name: (run / name).read_bytes() for name in TESTED}
    lab.run("fit", "SFTModule", run, TWO, "--ckpt_path=last")
    assert files(run / "earlier" / "1") == before and not [name for name in TESTED if (run / name).exists()]
    assert f"moved to {run / 'earlier' / '1'}" in caplog.text
    assert checkpoint(run)["global_step"] == 2 and len(list((run / "metrics").glob("version_*"))) == 2


def test_going_on_without_a_step_keeps_the_results(run, lab):
    before = {name: (run / name).read_bytes() for name in TESTED}
    lab.run("fit", "SFTModule", run, ONE, "--ckpt_path=last")
    assert {name: (run / name).read_bytes() for name in TESTED} == before and not (run / "earlier").exists()


def test_results_of_the_base_model_are_set_aside_when_training_begins(lab, tmp_path):
    lab.run("test", "SFTModule", tmp_path, "--trainer.limit_test_batches=1")
    lab.run("fit", "SFTModule", tmp_path, ONE)
    assert sorted(path.name for path in (tmp_path / "earlier" / "1").iterdir()) == sorted(TESTED)


def test_another_model_judged_beside_a_run_does_not_replace_its_results(run, lab, caplog):
    before = (run / "metrics.json").read_bytes()
    lab.run("test", "SFTModule", run, "--trainer.limit_test_batches=1")
    assert (run / "earlier" / "1" / "metrics.json").read_bytes() == before
    assert "holds a trained run, and this judges the model without an adapter." in caplog.text
    caplog.clear()
    lab.run("test", "SFTModule", run, "--trainer.limit_test_batches=1", "--ckpt_path=last")
    assert "holds a trained run" not in caplog.text and not (run / "earlier" / "2").exists()


# Runs that failed


@pytest.mark.parametrize("broken", ["--data.batch_size=20", "--model.backbone.adapter_path=nowhere"])
def test_a_run_that_failed_at_once_leaves_nothing(broken, lab, tmp_path, capsys):
    refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path / "run", ONE, broken))
    assert not (tmp_path / "run").exists()


def test_what_else_lies_there_outlives_a_run_that_failed_at_once(lab, tmp_path, capsys):
    for name in ("notes.txt", "config.yaml", "metrics/mine.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("of mine")
    (tmp_path / "metrics").rename(tmp_path / "figures")
    before = files(tmp_path)
    refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path, ONE, "--data.batch_size=20"))
    assert files(tmp_path) == before


def test_going_on_that_failed_at_once_leaves_the_run_and_its_record(run, lab, capsys):
    before = files(run)
    refusal(capsys, lab.arguments("fit", "SFTModule", run, "--ckpt_path=last", "--data.batch_size=20"))
    assert files(run) == before


def test_a_run_that_died_before_it_saved_is_no_part_of_the_next(lab, tmp_path, caplog):
    """Killed in its first steps: a table, the record, completions."""
    for name in ("metrics/version_0/metrics.csv", "completions/step-0000001.parquet", "config.yaml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("step,train/loss\n0,99.0\n1,98.0\n")
    before = files(tmp_path)
    lab.run("fit", "SFTModule", tmp_path, ONE)
    assert files(tmp_path / "earlier" / "1") == before and "saved no checkpoint" in caplog.text
    assert read_curves(tmp_path).values["train/loss"][0] < 90 and len(read_curves(tmp_path).stretches) == 1


@pytest.mark.slow
def test_trying_one_batch_is_no_run(run, lab):
    before = files(run)
    lab.run("fit", "SFTModule", run, "--trainer.fast_dev_run=true")
    assert files(run) == before


# Curves


def table(root, version, rows):
    path = root / "metrics" / f"version_{version}" / "metrics.csv"
    path.parent.mkdir(parents=True)
    path.write_text("step,train/loss\n" + "".join(f"{step},{loss}\n" for step, loss in rows))


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([[(0, 4.0), (1, 3.0)], [(2, 2.0), (3, 1.0)]], [4, 3, 2, 1]),  # gone on with
        ([[(0, 4.0), (1, 3.0), (2, 9.0)], [(2, 2.0), (3, 1.0)]], [4, 3, 2, 1]),  # gone on from before its end
        ([[(0, 4.0), (1, 3.0), (2, 9.0), (3, 9.0)], [(1, 2.0)]], [4, 2]),  # and ended earlier
        ([[(0, 9.0), (1, 9.0), (2, 9.0)], [(0, 4.0), (1, 3.0)]], [4, 3]),  # another run
        ([[(0, 9.0), (1, 9.0)], [(0, 4.0), (1, 3.0)], [(2, 2.0)]], [4, 3, 2]),  # another run, gone on with
        ([[(0, 4.0), (1, 3.0)], []], [4, 3]),  # gone on with, no step made
    ],
)
def test_a_curve_is_of_one_run(parts, expected, tmp_path):
    for version, rows in enumerate(parts):
        table(tmp_path, version, rows)
    assert list(read_curves(tmp_path).values["train/loss"]) == expected


# The lock


def hold(root, ready):
    with Lock(Path(root)):
        ready.set()
        signal.pause()


@pytest.fixture
def held(tmp_path):
    """A directory that another process holds, and that process."""
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path / "run", ready))
    process.start()
    assert ready.wait(60)
    yield tmp_path / "run", process
    process.kill()
    process.join()


@pytest.mark.parametrize("subcommand", ["fit", "validate", "test", "predict"])
def test_two_processes_in_one_directory_are_refused(subcommand, held, lab, capsys):
    root, other = held
    message = refusal(capsys, lab.arguments(subcommand, "SFTModule", root, ONE))
    assert f"{root} is in use by process {other.pid} on " in message
    assert [path.name for path in root.iterdir()] == [LOCK]


def test_a_kill_gives_the_lock_back(held):
    root, other = held
    other.kill()
    other.join()
    with Lock(root):
        pass
    assert list(root.iterdir()) == []


def test_a_forked_worker_does_not_keep_the_lock(tmp_path):
    """As those that load data, when the run is killed with SIGKILL and they live on for a moment."""
    with Lock(tmp_path):
        child = os.fork()
        if child == 0:
            signal.pause()
    with Lock(tmp_path):
        pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS])
def test_without_locks_it_says_so_and_goes_on(number, tmp_path, monkeypatch):
    def none(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", none)
    with pytest.warns(UserWarning, match="cannot be locked"), Lock(tmp_path):
        pass


@pytest.mark.slow
def test_other_processes_of_one_run_do_not_ask_for_the_lock(held, lab, monkeypatch):
    """Those of torchrun and of Lightning's own launcher."""
    root, _ = held
    monkeypatch.setattr("dermiq.cli.is_leader", lambda: False)
    lab.run("fit", "SFTModule", root, ONE)


@pytest.mark.slow
def test_a_lock_is_free_again_after_a_failure(lab, tmp_path, capsys):
    refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path, ONE, "--data.batch_size=20"))
    lab.run("fit", "SFTModule", tmp_path, ONE)
    assert not (tmp_path / LOCK).exists()


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_directory_that_cannot_be_written_to(number, lab, tmp_path, monkeypatch, capsys):
    original = os.open

    def refuse(path, *arguments, **options):
        if str(path).endswith(LOCK):
            raise OSError(number, os.strerror(number), str(path))
        return original(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refuse)
    message = refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path / "run", ONE))
    assert message.startswith(f"dermiq: {tmp_path / 'run'} cannot be written to ({os.strerror(number)}).")


def test_a_part_of_the_path_that_is_a_file(lab, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    message = refusal(capsys, lab.arguments("fit", "SFTModule", tmp_path / "file" / "run", ONE))
    assert "cannot be written to (Not a directory)" in message


# Setting aside


def test_numbers_go_on_and_gaps_are_filled(tmp_path):
    for name in ("1", "3", "mine"):
        (tmp_path / "earlier" / name).mkdir(parents=True)
    for expected in ("2", "4"):
        (tmp_path / "metrics.json").write_text("{}")
        set_aside(tmp_path, [tmp_path / "metrics.json", tmp_path / "nothing"], "Results")
        assert (tmp_path / "earlier" / expected / "metrics.json").is_file()


def test_a_move_that_fails_is_worded_and_the_run_is_still_refused(run, monkeypatch):
    original = Path.rename

    def full(self, target):
        if self.name == "checkpoints":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        return original(self, target)

    monkeypatch.setattr(Path, "rename", full)
    command = Command("fit", run, None, None, (), start_over=True)
    with pytest.raises(TrainingError, match="could not be cleared for a new run"), ExclusiveRun(command):
        pass
    again = Command("fit", run, None, None, (), start_over=False)
    with pytest.raises(TrainingError, match="holds a run already"), ExclusiveRun(again):
        pass


def test_slurm_that_starts_a_command_again_goes_on(run, monkeypatch):
    """Lightning resumes by itself there, from what it saved when the job was put back into the queue."""
    (run / "hpc_ckpt_1.ckpt").write_bytes(b"")
    monkeypatch.setattr(exclusive_run.SLURMEnvironment, "detect", staticmethod(lambda: True))
    with ExclusiveRun(Command("fit", run, None, None, (), start_over=False)):
        assert (run / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_the_adapter_of_a_run_set_aside_is_a_valid_start(run, lab, tmp_path):
    lab.run("fit", "SFTModule", run, ONE, "--start_over")
    moved = run / "earlier" / "1"
    start = f"--model.backbone.adapter_path={moved / 'adapter'}"
    still = "--model.optimizer.lr=0.0"
    lab.run("fit", "SFTModule", tmp_path / "next", ONE, start, still)
    assert different(adapter(moved), adapter(tmp_path / "next")) == []
    assert json.loads((moved / "metrics.json").read_text())
