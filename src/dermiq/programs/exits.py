"""How programs end: exit codes, the signals that stop them, and faults of the machine in one sentence."""

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

from dermiq import heed_interrupts
from dermiq.schema import DermIQError

PREFIX = "dermiq: "  # of what all programs say on stderr
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
_SHOWN = 200  # characters of what an error says
_WORKER = re.compile(r"DataLoader worker \(pid\S* ([\d, ]+)\)")
_SHARED_MEMORY = re.compile(r"out of shared memory|shared memory object|unable to write to file </torch_")

Handler = Callable[[int, FrameType | None], None]


class Stopped(SystemExit):
    """SIGTERM or SIGHUP as an exit, with the code that a shell gives it: 128 and the signal's number."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)


def stop(number: int) -> NoReturn:
    """End what is under way because of a signal.

    Raises:
        KeyboardInterrupt: of Ctrl-C.
        Stopped: of any other.
    """
    raise KeyboardInterrupt if number == signal.SIGINT else Stopped(number)


def answered(answer: Callable[[int], None]) -> Handler:
    """A signal handler that lets this process answer.

    Processes forked from it end by SIGTERM and leave the rest to it, since a terminal signals all of them. A terminal
    that hangs up can be written to no longer: what is said goes nowhere from then on.
    """
    process, terminals = os.getpid(), [each for each in _OUTPUTS if os.isatty(each)]

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == process:
            if number == signal.SIGHUP:
                _silence(terminals)
            answer(number)
        elif number == signal.SIGTERM:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    return handle


def begin() -> None:
    """What a program does first: open the outputs that were closed, and handle signals.

    Ctrl-C becomes a KeyboardInterrupt, SIGTERM and SIGHUP a `Stopped`; an ignored one (``nohup``) stays ignored.
    """
    _open_outputs()
    heed_interrupts()
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, answered(stop))


def leave_to_parent(worker: int = 0) -> None:
    """Let this worker process overhear what a terminal or a scheduler sends to all processes of a job.

    The parent finishes its step meanwhile, and for that it needs the worker. A second SIGTERM ends it.

    Args:
        worker: its number, as torch's loaders tell it; it does not matter.
    """

    def overhear(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)

    signal.signal(signal.SIGTERM, overhear)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def exit_codes() -> Iterator[None]:
    """Ends of a program as the shell wants them, in one sentence on stderr where there is something to mend.

    The code is 2 for a `DermIQError` and for a fault of disk, memory or permissions, 128 and its number for a signal
    (130 for Ctrl-C), and that of SIGPIPE, in silence, where nobody reads the output any more (``| head``).
    """
    begin()
    former, threading.excepthook = threading.excepthook, _of_a_thread(threading.excepthook)
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
        _settle()
        sys.exit(code)
    finally:
        threading.excepthook = former


def interrupted(error: BaseException) -> int | None:
    """The code of an exit that a signal asked for, also where Lightning has made another exit of it; else None."""
    each: BaseException | None = error
    while each is not None:
        if isinstance(each, KeyboardInterrupt):
            return INTERRUPTED
        if isinstance(each, Stopped):
            return int(each.code)  # type: ignore[arg-type]  # set above
        each = each.__context__
    return None


def in_words(error: BaseException) -> str | None:
    """What a fault of the machine under the program is, and what to do about it; None for any other error."""
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
    """What went wrong, in a line: the system's own words, else the first line of the error's, else its class."""
    number = _errno(error)
    return os.strerror(number) if number else (str(error).strip().splitlines() or [type(error).__name__])[0][:_SHOWN]


def _code(error: BaseException) -> int | None:
    code = interrupted(error) if isinstance(error, KeyboardInterrupt | SystemExit) else None
    if code is None and _without_reader(error):
        code = NO_READER
    text = str(error) if isinstance(error, DermIQError) else in_words(error)
    if code is None and text is not None:
        with suppress(OSError):
            sys.stderr.write(f"dermiq: {text}\n")
        code = FAILED
    return code


def _errno(error: BaseException) -> int:
    """The number of the system's error that this one is, or that a library or another process put into its text."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    told = re.findall(r"\[Errno (\d+)\]|\(os error (\d+)\)", str(error))  # Python's and Rust's ways of saying it
    return int("".join(told[-1])) if told else 0


def _place(error: BaseException) -> str:
    """The file that an error is about: what it names, else the one open where it was raised."""
    named = getattr(error, "filename2", None) or getattr(error, "filename", None)
    if isinstance(named, str | os.PathLike):
        return os.fspath(named)
    for frame, _ in reversed(list(traceback.walk_tb(error.__traceback__))):
        for value in frame.f_locals.values():
            if isinstance(value, io.IOBase) and isinstance(name := getattr(value, "name", None), str | os.PathLike):
                return os.fspath(name)
    told = re.findall(r"\[Errno \d+\][^\n]*: '([^\n]+)'", str(error))
    return told[-1] if told else "A file, or the output itself,"


def _without_reader(error: BaseException) -> bool:
    """Whether an error, or the exit that rich makes of it, is of an output that nobody reads."""
    if isinstance(error, SystemExit):
        return isinstance(error.__context__, BrokenPipeError)
    poll = select.poll()
    for output in _OUTPUTS:
        poll.register(output, 0)
    return isinstance(error, BrokenPipeError) and any(found & select.POLLERR for _, found in poll.poll(0))


def _settle() -> None:
    """Let go of what can be written to the output no longer, which Python would try once more at its end."""
    for stream, output in zip((sys.stdout, sys.stderr), _OUTPUTS, strict=True):
        try:
            stream.flush()
        except OSError:
            _silence((output,))


def _silence(outputs: list[int] | tuple[int, ...]) -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for output in outputs:
        os.dup2(nowhere, output)
    os.close(nowhere)


def _open_outputs() -> None:
    """Give an output that was closed (``>&-``) a place to go, or the next file that is opened would take its number."""
    for output, name in zip(_OUTPUTS, ("stdout", "stderr"), strict=True):
        if getattr(sys, name) is None:
            _silence([output])
            setattr(sys, name, open(output, "w", encoding="utf-8"))


def _of_a_thread(former: Callable[[threading.ExceptHookArgs], object]) -> Callable[[threading.ExceptHookArgs], None]:
    """Leaves out what the main thread meets as well, such as a full disk under TensorBoard's writer."""

    def hook(raised: threading.ExceptHookArgs) -> None:
        if raised.exc_value is None or in_words(raised.exc_value) is None:
            former(raised)

    return hook
