"""How programs end: exit codes, the signals that stop them, and faults of the machine in one sentence.

The first module that a program imports: nothing here may import what takes long.
"""

from __future__ import annotations

import errno
import io
import os
import re
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

from dermiq.schema import DermIQError

PREFIX = "dermiq: "  # of every line that a program writes to stderr about its end
FAILED, INTERRUPTED, NO_READER = 2, 128 + signal.SIGINT, 128 + signal.SIGPIPE
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OUTPUTS = (1, 2)  # stdout and stderr
_PERMISSION = "Change its permissions, or name a place that may be read and written."
_REMEDIES = {
    errno.ENOSPC: "Free space on this disk, or name another place.",
    errno.EDQUOT: "The quota is used up: free space, or name another place.",
    errno.EFBIG: "Raise the limit on the size of files (ulimit -f), or name another place.",
    errno.EROFS: "Name a place that may be written to.",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EIO: "The disk or the network share has a fault: look after it, then run the same again.",
    errno.ESTALE: "The network share was lost: mount it anew, then run the same again.",
    errno.ENOTDIR: "A part of this path is a file: name another place.",
    errno.ENAMETOOLONG: "Name a shorter path.",
    errno.EMFILE: "Raise the limit on open files (ulimit -n), or lower --data.num_workers.",
    errno.ENFILE: "This machine has too many files open: end other programs, then run the same again.",
}
_SHOWN = 200  # characters of an error's message
_WORKER = re.compile(r"DataLoader worker \(pid\S* ([\d, ]+)\)")
_SHARED_MEMORY = re.compile(r"out of shared memory|shared memory object|unable to write to file </torch_")

Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """SIGTERM or SIGHUP as an exit, with the code that a shell gives it: 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def sigint_default() -> None:
    """Let Ctrl-C end the process at once, without a traceback: while a program imports there is nothing to save.

    A Ctrl-C that the shell ignores (``nohup``, ``&`` in a script) stays ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def sigint_python() -> None:
    """Make Ctrl-C a KeyboardInterrupt again, once a program has imported what it needs."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def stop(number: int) -> NoReturn:
    """Raise the exit that a signal asks for.

    Raises:
        KeyboardInterrupt: of Ctrl-C.
        Stopped: of any other.
    """
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def answered(answer: Callable[[int], None]) -> Handler:
    """A signal handler that calls `answer` in this process alone.

    A terminal signals all processes of a job: those forked from this one end by SIGTERM and ignore the other signals.
    After SIGHUP the terminal is gone, and output to it is discarded.
    """
    process, terminals = os.getpid(), [each for each in _OUTPUTS if os.isatty(each)]

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            if number == signal.SIGHUP:
                _discard(terminals)
            answer(number)
        elif number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return handle


def begin() -> None:
    """Set up a program: open the outputs that were closed, and handle signals.

    Ctrl-C becomes a KeyboardInterrupt, SIGTERM and SIGHUP a `Stopped`; an ignored one (``nohup``) stays ignored.
    """
    _open_outputs()
    sigint_python()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, answered(stop))


def leave_to_parent(worker: int = 0) -> None:
    """Make this worker process ignore the signals that a terminal or a scheduler sends to all processes of a job.

    The parent needs the worker to finish its step. A second SIGTERM ends the worker.

    Args:
        worker: its number, which torch's loaders pass; not used.
    """

    def ignore_once(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, ignore_once)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def exit_codes() -> Iterator[None]:
    """The exit code of the program that runs inside; an error that a user can mend is one sentence on stderr.

    The code is 2 for a `DermIQError` and for a fault of disk, memory or permissions, 128 plus its number for a signal
    (130 for Ctrl-C), and 141 (SIGPIPE), without a message, where nobody reads the output any more (``| head``).
    """
    begin()
    former, threading.excepthook = threading.excepthook, _thread_hook(threading.excepthook)
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except BaseException as error:
        code = _code(error)
        if code is None:
            raise
        _flush_outputs()
        sys.exit(code)
    finally:
        threading.excepthook = former


def interrupted(error: BaseException) -> int | None:
    """The exit code of the signal behind an error, also where Lightning has raised another exit; None without one."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(each, Stopped):
            return int(each.code)  # type: ignore[arg-type]  # set above
        each = each.__context__
    return None


def in_words(error: BaseException) -> str | None:
    """The sentence for a fault of disk, memory or permissions, with its remedy; None for any other error."""
    worker = _WORKER.search(str(error))
    if isinstance(error, RuntimeError) and _SHARED_MEMORY.search(str(error)):
        return (
            "The processes that load data ran out of shared memory (/dev/shm). Give it more (docker run "
            "--shm-size=8g), or lower --data.num_workers or --data.batch_size."
        )
    if isinstance(error, RuntimeError) and worker is not None:
        return (
            f"A process that loads data (pid {worker[1]}) was killed, most likely because memory ran out. Lower "
            "--data.num_workers or --data.batch_size; a training that has saved goes on with --ckpt_path=last."
        )
    number = _errno(error)
    if number not in _REMEDIES:
        return None
    return f"{_place(error)} could not be read or written ({os.strerror(number)}). {_REMEDIES[number]}"


def reason(error: BaseException) -> str:
    """The cause of an error in one line: the system's message, else the first line of its own, else its class."""
    number = _errno(error)
    return os.strerror(number) if number else (str(error).strip().splitlines() or [type(error).__name__])[0][:_SHOWN]


def _code(error: BaseException) -> int | None:
    code = interrupted(error) if isinstance(error, KeyboardInterrupt | SystemExit) else None
    if code is None and _without_reader(error):
        code = NO_READER
    text = str(error) if isinstance(error, DermIQError) else in_words(error)
    if code is None and text is not None:
        with suppress(OSError):
            sys.stderr.write(f"{PREFIX}{text}\n")
        code = FAILED
    return code


def _errno(error: BaseException) -> int:
    """The errno of an error, or the one that a library or another process wrote into its text; 0 without one."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    numbers = re.findall(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))  # as Python and Rust write it
    return int("".join(numbers[-1])) if numbers else 0


def _place(error: BaseException) -> str:
    """The path of the file that an error names, else of one that was open where it was raised."""
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(named, str | os.PathLike):
        return os.fspath(named)
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            if isinstance(value, io.IOBase) and isinstance(name := getattr(value, "name", None), str | os.PathLike):
                return os.fspath(name)
    paths = re.findall(r"\[Errno \d+\][^\n]*: '([^\n]+)'", str(error))
    return paths[-1] if paths else "A file, or the output itself,"


def _without_reader(error: BaseException) -> bool:
    """True for a broken pipe of an output, or for the exit that rich makes of it."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    poll = select.poll()
    for output in _OUTPUTS:
        poll.register(output, 0)
    return isinstance(error, BrokenPipeError) and any(found & select.POLLERR for _, found in poll.poll(0))


def _flush_outputs() -> None:
    """Flush the outputs; what can no longer be written is discarded, or Python would try again at its end."""
    for stream, output in zip((sys.stdout, sys.stderr), _OUTPUTS, strict=True):
        try:
            stream.flush()
        except OSError:
            _discard((output,))


def _discard(outputs: list[int] | tuple[int, ...]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in outputs:
        os.dup2(nowhere, output)
    os.close(nowhere)


def _open_outputs() -> None:
    """Open the outputs that were closed (``>&-``), or the next file that is opened would take their numbers."""
    for output, name in zip(_OUTPUTS, ("stdout", "stderr"), strict=True):
        if getattr(sys, name) is None:
            _discard([output])
            setattr(sys, name, open(output, "w", encoding="utf-8"))


def _thread_hook(former: Callable[[threading.ExceptHookArgs], object]) -> Callable[[threading.ExceptHookArgs], None]:
    """The excepthook of threads without errors that the main thread meets too (TensorBoard's writer on a full disk)."""

    def hook(raised: threading.ExceptHookArgs) -> None:
        if raised.exc_value is None or in_words(raised.exc_value) is None:
            former(raised)

    return hook
