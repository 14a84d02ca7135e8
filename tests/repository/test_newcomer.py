"""What somebody meets who runs the programs for the first time: help, mistakes, Ctrl-C, colours."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dermiq.cli import SUBCOMMANDS, main
from dermiq.programs import exits

REPOSITORY = Path(__file__).parents[2]
CLI = [str(REPOSITORY / "cli.py")]
PROGRAMS = {
    "cli": CLI,
    **{
        name: ["-m", f"dermiq.{name}"]
        for name in ("kg", "demo", "export", "report", "quickstart", "tiny", "datamodules.splits")
    },
    "study": ["-m", "study"],
}
COLOUR = re.compile(rb"\x1b\[(?:\d+;)*(?:3[0-7]|4[0-7]|9[0-7]|10[0-7]|[34]8;5;\d+)(?:;\d+)*m")


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command that exits with code 2 says."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and "Traceback" not in error
    return error


def start(arguments: list[str], **options) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "tests")}
    return subprocess.Popen([sys.executable, *arguments], env=environment, **options)


@pytest.mark.parametrize(
    ("arguments", "said", "step"),
    [
        (["fit"], "The command lacks data, model", "Name an experiment with --config"),
        (
            ["fit", "--config=configs/gropo.yaml"],
            "There is no file configs/gropo.yaml",
            "did you mean configs/grpo.yaml?",
        ),
        (["train"], "There is no command 'train'", "'fit', 'validate', 'test', 'predict'"),
    ],
)
def test_a_mistake_names_the_next_step(arguments, said, step, capsys):
    error = refusal(arguments, capsys)
    assert said in error and step in error


@pytest.mark.parametrize(
    ("option", "said", "step"),
    [
        ("--max_steps=3", "There is no option --max_steps", "did you mean --trainer.max_steps?"),
        (
            "--model.class_path=dermiq.modules.GRPOModul",
            "names 'dermiq.modules.GRPOModul'",
            "did you mean dermiq.modules.GRPOModule?",
        ),
        ("--ckpt_path=text.txt", "The checkpoint text.txt cannot be read", "Pass another one"),
        ("--ckpt_path=none.ckpt", "There is no checkpoint none.ckpt", "Leave --ckpt_path out"),
        ("--trainer.default_root_dir=text.txt", "text.txt is a file", "Name a directory"),
        ("--trainer.devices=0", "The trainer cannot do this", "--trainer.devices"),
    ],
)
def test_a_wrong_option_names_the_next_step(option, said, step, lab, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("I am a text.")
    error = refusal(lab.arguments("fit", "SFTModule", tmp_path / "run", option), capsys)
    assert said in error and step in error


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there(lab, tmp_path, capsys):
    error = refusal(lab.arguments("fit", "SFTModule", tmp_path, "--trainer.accelerator=gpu"), capsys)
    assert "The trainer cannot do this: No supported gpu backend found." in error and "auto" in error


def test_help_is_about_this_program(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--help"])
    said = capsys.readouterr().out
    assert stopped.value.code == 0 and "Lightning Trainer command line tool" not in said and "examples:" in said
    assert all(text.split(",")[0] in " ".join(said.split()) for text in SUBCOMMANDS.values())


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_begins_with_what_it_does(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    usage, _, rest = capsys.readouterr().out.partition("\n\n")
    assert len(usage.splitlines()) == 1 and rest.startswith(SUBCOMMANDS[name])


def test_a_run_carries_no_advertisement(lab, tmp_path, caplog):
    lab.run("fit", "SFTModule", tmp_path, "--trainer.max_steps=1", "--trainer.callbacks=null")
    assert "max_steps=1" in caplog.text and not re.search("tip:|litlogger|litmodels", caplog.text, re.IGNORECASE)


def test_importing_the_package_leaves_ctrl_c_alone():
    code = "import signal, dermiq; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    heed = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    process = start(["-c", code], stdout=subprocess.PIPE, text=True, preexec_fn=heed)
    assert process.communicate()[0] == "True\n"


def test_an_ignored_ctrl_c_stays_ignored():
    before = signal.getsignal(signal.SIGINT)
    try:
        for handler, hushed in ((signal.SIG_IGN, signal.SIG_IGN), (signal.default_int_handler, signal.SIG_DFL)):
            signal.signal(signal.SIGINT, handler)
            exits.sigint_default()
            assert signal.getsignal(signal.SIGINT) is hushed
            exits.sigint_python()
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_ctrl_c_during_the_imports_is_silent(name):
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731 (a background job's children ignore it)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "preexec_fn": heed}
    process = start(["-X", "importtime", *PROGRAMS[name], "--help"], **options)
    for line in process.stdout:  # -X importtime names each module as its import ends
        if re.search(rb"\| +(?:rich\.console|torch\.version|typing_extensions|json)$", line.strip()):
            break
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    rest = process.communicate()[0]
    assert b"Traceback" not in rest and b"KeyboardInterrupt" not in rest
    assert process.returncode == -signal.SIGINT  # 130 for the shell


def in_terminal(arguments: list[str], **environment: str) -> bytes:
    """What a program writes to a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, *arguments]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY / "tests"), "TERM": "xterm-256color"}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=os.environ | own | environment)
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 2**16)
        except OSError:  # the other end is closed
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    assert process.wait() == 0, written
    return written


@pytest.mark.slow
def test_colours_are_for_terminals_that_want_them(lab, tmp_path):
    fit = [*CLI, *lab.arguments("fit", "SFTModule", tmp_path / "run", "--trainer.max_steps=1", "--start_over")]
    judge = ["-m", "dermiq.kg", "score", "--condition", "scabies", "--answer", "Scabies is not contagious."]
    for arguments in (fit, judge):
        assert COLOUR.search(in_terminal(arguments)), arguments
        assert not COLOUR.search(in_terminal(arguments, NO_COLOR="1")), arguments
        piped = start(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).communicate()[0]
        assert b"\x1b" not in piped, arguments
