"""Faults of reading a file: those of the machine are no `DataError` about the file, and special files are refused."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dermiq.schema import DataError, DermIQError

# Faults of the disk, the network or the machine, and of rights: the file itself may be sound.
PASSING = frozenset(
    {
        errno.EIO,
        errno.ESTALE,
        errno.ETIMEDOUT,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.EAGAIN,
        errno.EINTR,
        errno.EBUSY,
        errno.ENXIO,
        errno.ENODEV,
        errno.ENOTCONN,
        errno.EREMOTEIO,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.ECONNRESET,
        errno.ECONNREFUSED,
        errno.ESHUTDOWN,
        errno.EACCES,
        errno.EPERM,
    }
)
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_SHOWN = 300


def is_file(path: str | Path) -> bool:
    """True for a regular file, False where there is none.

    Raises:
        DermIQError: if the machine cannot read it now.
    """
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except ValueError:  # a NUL, or what the file system cannot write
        return False
    except OSError as error:
        if error.errno in PASSING:
            raise passing_fault(path, error) from error
        return False


def refuse_special(path: str | Path) -> None:
    """Check that a path, if there is anything, is a regular file: reading a pipe or a device might never end.

    Raises:
        DataError: naming what it is.
        DermIQError: if the machine cannot read it now.
    """
    if is_file(path):
        return
    try:
        mode = os.stat(path).st_mode
    except (ValueError, OSError):
        return
    kind = next((name for test, name in _KINDS if test(mode)), "no regular file")
    raise DataError(f"{path}: this is {kind} and no file. Name a file, or take it out.")


def passing_fault(path: str | Path, error: BaseException) -> DermIQError:
    """The error for a fault of the machine; no `DataError`, which would leave the sample out."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return DermIQError(f"{path}: the file may not be read ({error.strerror}). Give this user the right to read it.")
    said = (error.strerror if isinstance(error, OSError) else str(error)) or type(error).__name__
    return DermIQError(
        f"{path}: the machine cannot read the file now ({said}). Nothing is known to be wrong with the file: see to "
        "the disk, the memory or the number of open files (ulimit -n), and start again."
    )


@contextmanager
def reading(place: str | Path, remedy: str) -> Iterator[None]:
    """A context that turns whatever a library's reader raises into one sentence.

    Args:
        place: the file, with row and column where they are known.
        remedy: a sentence that says what to do.

    Raises:
        DataError: for whatever cannot be read.
        DermIQError: for a fault of the machine.
    """
    try:
        yield
    except DermIQError:
        raise
    except Exception as error:  # readers of Arrow, JSON and Parquet fail in any way
        if fault := _fault_in(error):
            raise passing_fault(place, fault) from error
        raise DataError(f"{place} ({reason(error)}). {remedy}") from error


def reason(error: BaseException) -> str:
    """The message of an error's first cause, in one line of at most 300 characters."""
    cause = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    said = " ".join(str(cause).split()) or type(cause).__name__
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]}..."


def _fault_in(error: BaseException | None) -> BaseException | None:
    """The fault of the machine that an error comes from, if it does."""
    while error is not None:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in PASSING):
            return error
        error = error.__cause__
    return None
