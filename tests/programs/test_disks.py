"""Disks that are full, read-only or gone, and outputs that nobody reads: one sentence or silence, never a traceback."""

import errno
import os
import shutil
import subprocess
import sys

import pytest
from safetensors import SafetensorError

from dermiq import quickstart
from dermiq.cli import main
from dermiq.export.__main__ import main as export
from dermiq.export.__main__ import write_adapter
from dermiq.kg.__main__ import main as knowledge_graph
from dermiq.programs.exits import exit_codes
from dermiq.tiny import write_tiny_vlm
from dermiq.tiny.__main__ import main as tiny


def words(capsys, act):
    """What a program that fails says."""
    with pytest.raises(SystemExit) as stopped, exit_codes():
        act()
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    return error.splitlines()[-1]


def raising(error):
    def act(*_, **__):
        raise error

    return act


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "Free space on this disk"),
        (errno.EDQUOT, "The quota is used up"),
        (errno.EROFS, "may be written to"),
        (errno.EACCES, "Change its permissions"),
        (errno.EPERM, "Change its permissions"),
        (errno.EIO, "has a fault"),
        (errno.ESTALE, "mount it anew"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EMFILE, "ulimit -n"),
        (errno.ENFILE, "too many files open"),
        (errno.ENOTDIR, "is a file"),
        (errno.ENAMETOOLONG, "shorter"),
    ],
)
def test_every_fault_of_a_disk_names_the_file_and_the_remedy(number, remedy, capsys):
    said = words(capsys, raising(OSError(number, os.strerror(number), "runs/a/file")))
    assert said.startswith(f"dermiq: runs/a/file could not be read or written ({os.strerror(number)}).")
    assert remedy in said


def test_the_file_is_named_also_where_the_error_does_not(tmp_path, capsys):
    """As of a write; the disk here is always full."""

    def act(path):
        with open(path, "w") as file:
            file.write("x" * 100_000)

    assert words(capsys, lambda: act("/dev/full")).startswith(
        "dermiq: /dev/full could not be read or written (No space"
    )


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(
            "Caught OSError in DataLoader worker process 0.\n  ...\nOSError: [Errno 28] No space left on device: 'a'"
        ),
        shutil.Error([("a", "b", "[Errno 28] No space left on device: 'b'")]),
    ],
)
def test_what_libraries_and_other_processes_make_of_it_is_understood(error, capsys):
    said = words(capsys, raising(error))
    assert "could not be read or written (No space left on device)" in said and "[(" not in said


def test_other_errors_are_not_hidden():
    for error in (FileNotFoundError(2, "none"), ValueError("x"), RuntimeError("y"), BrokenPipeError(32, "a queue's")):
        with pytest.raises(type(error)), exit_codes():
            raise error


# Lightning's and transformers' own writers


def full(*_, **__):
    with open("/dev/full", "w") as file:
        file.write("x" * 100_000)


@pytest.mark.parametrize(
    "writer",
    [
        "lightning.fabric.loggers.csv_logs._ExperimentWriter.save",
        "lightning.pytorch.loggers.tensorboard.save_hparams_to_yaml",
        "tensorboard.summary.writer.record_writer.RecordWriter.write",
        "tensorboard.summary.writer.record_writer.RecordWriter.flush",
    ],
)
def test_a_full_disk_under_a_logger(writer, lab, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(writer, full)
    arguments = lab.arguments("fit", "SFTModule", tmp_path, "--trainer.max_steps=1")
    said = words(capsys, lambda: main(arguments))
    assert said.startswith("dermiq: /dev/full could not be read or written (No space left on device). Free space")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_the_adapter_and_no_checkpoint_yet(number, lab, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("peft.PeftModel.save_pretrained", raising(OSError(number, os.strerror(number))))
    arguments = lab.arguments("fit", "SFTModule", tmp_path, "--trainer.max_steps=1")
    said = words(capsys, lambda: main(arguments))
    assert f"could not be written ({os.strerror(number)})" in said and "then run the same again." in said


@pytest.mark.parametrize("writer", ["PreTrainedModel", "ProcessorMixin"])
def test_the_tiny_model(writer, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(f"transformers.{writer}.save_pretrained", full)
    for act in (lambda: tiny(["--out", str(tmp_path / "t")]), lambda: quickstart.main(["--out", str(tmp_path / "q")])):
        said = words(capsys, act)
        assert said.startswith("dermiq: The tiny model could not be written to ") and "(No space left" in said


def test_the_tiny_model_in_place_of_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("of mine")
    assert "(File exists)" in words(capsys, lambda: tiny(["--out", str(tmp_path / "file")]))
    assert (tmp_path / "file").read_text() == "of mine"


def test_an_export_says_why_and_no_list(tmp_path, monkeypatch, capsys):
    from dermiq.export import __main__ as program

    listed = shutil.Error([(f"{name}", f"out/{name}", "[Errno 28] No space left on device") for name in "abc"])
    monkeypatch.setattr(shutil, "copytree", raising(listed))
    with pytest.raises(Exception, match=r"could not be written \(No space left on device\)\. Nothing was left there"):
        program._whole_or_nothing(tmp_path / "out", lambda directory: shutil.copytree("a", directory))
    assert export and write_adapter


# Outputs


def in_child(act, stdout, stderr=None):
    """The exit code of a forked process and what it wrote to stderr."""
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        code = 99
        try:
            os.dup2(stdout, 1)
            os.dup2(writer if stderr is None else stderr, 2)
            sys.stdout, sys.stderr = open(1, "w"), open(2, "w", buffering=1)
            try:
                with exit_codes():
                    act()
                code = 0
            except SystemExit as stopped:
                code = stopped.code or 0
            sys.stdout.flush()
        finally:
            os._exit(code)
    os.close(writer)
    code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
    with open(reader, "rb") as said:
        return code, said.read().decode()


@pytest.fixture
def unread():
    """A pipe that nobody reads, as after ``| head``."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


def talk():
    for _ in range(10_000):
        sys.stdout.write("a line\n")


def test_output_that_nobody_reads_ends_a_program_in_silence(unread):
    assert in_child(talk, unread) == (141, "")
    assert in_child(lambda: sys.stdout.write("short\n"), unread) == (141, "")


def test_so_it_does_where_rich_writes(unread):
    from rich.console import Console

    assert in_child(lambda: Console().print("a line"), unread) == (141, "")


def test_the_configuration_printed_for_nobody(lab, tmp_path, unread):
    arguments = lab.arguments("fit", "SFTModule", tmp_path / "run", "--print_config")
    assert in_child(lambda: main(arguments), unread) == (141, "")


def test_a_full_disk_under_the_output():
    with open("/dev/full", "wb") as nowhere:
        code, said = in_child(talk, nowhere.fileno())
        assert code == 2 and said.startswith("dermiq: ") and "(No space left on device)" in said
        assert in_child(lambda: knowledge_graph(["describe", "scabies"]), nowhere.fileno())[0] == 2


@pytest.mark.slow
def test_closed_outputs(tmp_path):
    """The next file that is opened must not become the output."""
    command = f"{sys.executable} -m dermiq.kg describe scabies"
    for closed in (">&-", ">&- 2>&-"):
        done = subprocess.run(["bash", "-c", f"{command} {closed}"], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == ""
    write_tiny_vlm(tmp_path / "whole")
    command = f"{sys.executable} -m dermiq.tiny --out {tmp_path / 'tiny'}"
    for closed in (">&-", ">&- 2>&-"):
        assert subprocess.run(["bash", "-c", f"{command} {closed}"], check=False).returncode == 0
    for path in (tmp_path / "whole").iterdir():
        assert (tmp_path / "tiny" / path.name).read_bytes() == path.read_bytes()
