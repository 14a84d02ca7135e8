"""What asks a run to stop: it saves, says so, and ends with the exit code that a shell expects."""

import json
import multiprocessing
import os
import re
import signal
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from dermiq.cli import main
from dermiq.demo import __main__ as demo
from dermiq.programs import exits
from dermiq.programs.exits import STOPS, Stopped, answered, begin, exit_codes, leave_to_parent
from support.kills import FORK
from support.runs import adapter, checkpoint, different

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
STEPS = ["--trainer.max_epochs=2", "--trainer.limit_train_batches=4"]


@pytest.fixture(autouse=True)
def own_signals():
    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def ended(arguments):
    """The exit code of a command, 0 where it comes to its end."""
    try:
        main(arguments)
    except SystemExit as stopped:
        return stopped.code
    return 0


def signalled(number, hook, batch=1, times=1):
    """Options that send signals to this process in a hook of the callbacks."""
    given = {"number": int(number), "hook": hook, "batch": batch, "times": times}
    options = [f"--trainer.callbacks.{name}={value}" for name, value in given.items()]
    return ["--trainer.callbacks+=support.parts.SignalAt", *options]


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_a_step_is_finished_and_saved(number, lab, tmp_path, caplog):
    arguments = lab.arguments("fit", "SFTModule", tmp_path, *STEPS)
    assert ended([*arguments, *signalled(number, "on_train_batch_start")]) == CODES[number]
    assert checkpoint(tmp_path)["global_step"] == 2
    assert "finishing this step, then saving" in caplog.text and "Saved step 2; go on" in caplog.text


def test_a_finished_run_gives_the_signals_back(lab, tmp_path):
    """Those of Lightning too: the next stage of a quickstart begins with none of the last one's."""
    before = {number: signal.getsignal(number) for number in STOPS}
    lab.run("fit", "SFTModule", tmp_path, "--trainer.max_steps=1")
    assert {number: signal.getsignal(number) for number in STOPS} == before


def test_resumed_after_sigterm_equals_uninterrupted(lab, tmp_path):
    whole = lab.arguments("fit", "GRPOModule", tmp_path / "whole", *STEPS)
    parts = lab.arguments("fit", "GRPOModule", tmp_path / "parts", *STEPS)
    assert ended(whole) == 0
    assert ended([*parts, *signalled(signal.SIGTERM, "on_train_batch_start")]) == 143
    assert ended([*parts, "--ckpt_path=last", *signalled(signal.SIGHUP, "on_train_batch_start", batch=3)]) == 129
    assert ended([*parts, "--ckpt_path=last"]) == 0
    assert different(adapter(tmp_path / "whole"), adapter(tmp_path / "parts")) == []


@pytest.mark.parametrize(
    ("hook", "batch", "steps"),
    [
        ("on_validation_batch_start", 0, 3),  # after the second step: the validation is a part of it
        ("on_validation_end", 0, 3),
        ("on_train_batch_end", 3, 5),  # of the epoch: too late for this step, so the next one is made
        ("on_save_checkpoint", 0, 8),  # of the end: it is saved, and what would follow is not begun
    ],
)
def test_a_signal_elsewhere_in_training(hook, batch, steps, lab, tmp_path):
    validation = ["--trainer.limit_val_batches=1", "--trainer.val_check_interval=2"] if "validation" in hook else []
    arguments = lab.arguments("fit", "SFTModule", tmp_path, *STEPS, *validation)
    assert ended([*arguments, *signalled(signal.SIGTERM, hook, batch)]) == 143
    assert checkpoint(tmp_path)["global_step"] == steps


@pytest.mark.parametrize(
    "hook", ["setup", pytest.param("on_fit_start", marks=pytest.mark.slow), "on_sanity_check_start"]
)
def test_a_signal_before_the_first_step_stops_at_once_and_leaves_nothing(hook, lab, tmp_path):
    sanity = ["--trainer.num_sanity_val_steps=1", "--trainer.limit_val_batches=1"]
    arguments = lab.arguments("fit", "SFTModule", tmp_path / "run", *sanity, *signalled(signal.SIGTERM, hook, 0))
    assert ended(arguments) == 143
    assert not (tmp_path / "run").exists()


def test_the_second_signal_stops_at_once(lab, tmp_path):
    arguments = lab.arguments("fit", "SFTModule", tmp_path, *STEPS)
    assert ended([*arguments, *signalled(signal.SIGTERM, "on_train_batch_start", times=2)]) == 143
    assert not (tmp_path / "checkpoints" / "last.ckpt").exists()


def test_a_signal_that_is_ignored_stays_ignored(lab, tmp_path):
    """As with ``nohup``."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    arguments = lab.arguments("fit", "SFTModule", tmp_path, *STEPS)
    assert ended([*arguments, *signalled(signal.SIGHUP, "on_train_batch_start")]) == 0
    assert checkpoint(tmp_path)["global_step"] == 8
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN


@pytest.mark.parametrize(("subcommand", "rows"), [("test", "test_predictions"), ("predict", "predictions")])
def test_an_evaluation_keeps_its_rows(subcommand, rows, lab, tmp_path):
    batches = "--data.eval_batch_size=2"
    arguments = lab.arguments(subcommand, "SFTModule", tmp_path, batches)
    hook = f"on_{subcommand}_batch_start"
    assert ended([*arguments, *signalled(signal.SIGTERM, hook, 3)]) == 143
    kept = [json.loads(line) for line in (tmp_path / f"{rows}.jsonl").read_text().splitlines()]
    assert len(kept) == 6 and not (tmp_path / "metrics.json").exists()


# The parts


@pytest.mark.parametrize("number", STOPS, ids=lambda number: number.name)
def test_a_program_that_does_not_train_ends_at_once(number):
    with pytest.raises(SystemExit) as stopped, exit_codes():
        os.kill(os.getpid(), number)
        time.sleep(5)
    assert stopped.value.code == CODES[number]


def test_what_cleans_up_sees_the_signal_too(tmp_path):
    cleaned = []
    with pytest.raises(SystemExit), exit_codes():
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            cleaned.append(True)
    assert cleaned == [True]


def in_child(act):
    """The exit code, or minus the signal, of a forked process."""
    process = os.fork()
    if process == 0:
        try:
            act()
        finally:
            os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def test_a_forked_process_leaves_the_answer_to_its_parent():
    begin()
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 7
    assert in_child(lambda: os.kill(os.getpid(), signal.SIGTERM)) == -signal.SIGTERM


def test_a_worker_overhears_the_first_sigterm():
    def act(times):
        leave_to_parent()
        for _ in range(times):
            os.kill(os.getpid(), signal.SIGTERM)

    assert in_child(lambda: act(1)) == 7
    assert in_child(lambda: act(2)) == -signal.SIGTERM
    for number in (signal.SIGINT, signal.SIGHUP):
        assert in_child(lambda number=number: leave_to_parent() or os.kill(os.getpid(), number)) == 7


def test_after_a_hang_up_output_goes_nowhere(monkeypatch):
    """A terminal that is gone answers every write with an error."""
    reader, writer = os.pipe()
    monkeypatch.setattr(exits, "_OUTPUTS", (writer,))
    monkeypatch.setattr(os, "isatty", lambda number: number == writer)
    handle = answered(lambda number: None)
    handle(signal.SIGTERM, None)
    os.write(writer, b"heard")
    handle(signal.SIGHUP, None)
    os.write(writer, b"lost")
    os.close(writer)
    assert os.read(reader, 100) == b"heard"
    os.close(reader)


def test_stopped_carries_its_code_through_what_lightning_makes_of_it():
    lightning = SystemExit(1)
    lightning.__context__ = KeyboardInterrupt()
    assert exits.interrupted(lightning) == 130
    assert exits.interrupted(Stopped(signal.SIGHUP)) == 129
    assert exits.interrupted(SystemExit(3)) is None


def test_the_demo_leaves_no_folder(monkeypatch):
    folders = []

    @contextmanager
    def served(*_):
        folders.append(Path(os.environ["GRADIO_TEMP_DIR"]))
        assert folders[0].is_dir()
        os.kill(os.getpid(), signal.SIGTERM)
        yield "nowhere"

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")
    monkeypatch.setattr(demo, "_page", lambda: (lambda reader: None, served))
    monkeypatch.setattr(demo, "load", lambda *_: None)
    monkeypatch.setattr(demo, "Policy", lambda *_: None)
    with pytest.raises(SystemExit) as ended, exit_codes():
        demo.main(["--model", "any"])
    assert ended.value.code == 143 and len(folders) == 1 and not folders[0].exists()


# Workers


@pytest.mark.parametrize(
    "number", [pytest.param(each, marks=[pytest.mark.slow] * (each != signal.SIGTERM), id=each.name) for each in STOPS]
)
def test_a_signal_to_all_processes_of_a_job(number, lab, tmp_path):
    """SLURM, systemd and a closed terminal send it to the workers as well."""
    loaded = ["--data.num_workers=1"]
    arguments = lab.arguments("fit", "SFTModule", tmp_path, *STEPS, *loaded)
    to_all = [*signalled(number, "on_train_batch_start"), "--trainer.callbacks.workers=true"]
    assert ended([*arguments, *to_all]) == CODES[number]
    assert checkpoint(tmp_path)["global_step"] == 2


@pytest.mark.parametrize("subcommand", ["fit", pytest.param("test", marks=pytest.mark.slow)])
def test_a_killed_worker_is_named_with_the_likely_cause(subcommand, lab, tmp_path, capsys):
    options = ["--data.num_workers=1", "--data.eval_batch_size=1"]
    arguments = lab.arguments(subcommand, "SFTModule", tmp_path, *options)
    hook = "on_train_batch_start" if subcommand == "fit" else "on_test_batch_start"
    kill = [*signalled(signal.SIGKILL, hook), "--trainer.callbacks.workers=true", "--trainer.callbacks.main=false"]
    assert ended([*arguments, *kill]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.match(
        r"dermiq: A process that loads data \(pid \d+\) was killed, most likely because memory ran out\.", said
    )
    assert "--data.num_workers" in said and "--data.batch_size" in said


@pytest.mark.parametrize(
    "text",
    [
        "DataLoader worker (pid 12) is killed by signal: Bus error. It is possible that dataloader's workers are out "
        "of shared memory. Please try to raise your shared memory limit.",
        "unable to write to file </torch_12_34_0>: No space left on device (28)",
        "unable to open shared memory object </torch_12_34_0> in read-write mode: No space left on device (28)",
    ],
)
def test_shared_memory_that_ran_out_is_named(text, capsys):
    with pytest.raises(SystemExit) as stopped, exit_codes():
        raise RuntimeError(text)
    assert stopped.value.code == 2
    assert "ran out of shared memory (/dev/shm)" in capsys.readouterr().err


# As a shell does it


def train(arguments, log):
    os.setsid()
    multiprocessing.set_start_method("fork", force=True)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    main(arguments)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_process_group_is_signalled_at_any_time(number, lab, tmp_path):
    """A run with a worker that loads data, which would go on for hours."""
    log, root = tmp_path / "log.txt", tmp_path / "run"
    options = ["--trainer.max_epochs=100000", "--data.num_workers=1"]
    process = FORK.Process(target=train, args=(lab.arguments("fit", "SFTModule", root, *options), str(log)))
    process.start()
    table, until = root / "metrics" / "version_0" / "metrics.csv", time.monotonic() + 200
    while not (table.is_file() and len(table.read_text().splitlines()) > 3):
        assert process.is_alive() and time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    os.killpg(process.pid, number)
    process.join(60)
    assert process.exitcode == CODES[number], log.read_text()
    assert checkpoint(root)["global_step"] >= 3 and "Traceback" not in log.read_text()
