"""Output of the commands: progress on stderr, counts in words, and files that are replaced as a whole."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TextIO

from rich.console import Console

from dermiq.files import PARTIAL, replacing
from dermiq.schema import KnowledgeError

CONSOLE = Console(stderr=True)


def counted(number: int, noun: str) -> str:
    """A number with its noun: ``1 fact``, ``2,000 facts``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


@contextmanager
def written(path: Path, keep: bool = False) -> Iterator[TextIO]:
    """A text file that takes its name when it is complete; a device, such as /dev/null, is written to directly.

    Args:
        path: of the file.
        keep: leave the lines written before a failure in ``NAME.partial``, and say so.

    Raises:
        KnowledgeError: if it cannot be written.
    """
    if not path.parent.is_dir():
        raise KnowledgeError(f"{path} cannot be written: there is no folder {path.parent}.")
    device = path.exists() and not path.is_file()
    target = path if device else path.resolve()
    try:
        opened: AbstractContextManager[IO[bytes]] = target.open("wb") if device else replacing(target, keep)
        with opened as file:
            # A lone surrogate, which is no UTF-8, becomes its escape in JSON.
            text = io.TextIOWrapper(file, "utf-8", errors="backslashreplace", line_buffering=True)
            yield text
            text.flush()
            text.detach()
    except BaseException as error:
        partial = target.with_name(target.name + PARTIAL)
        if keep and partial.is_file():
            _report(partial)
        if isinstance(error, OSError):
            raise KnowledgeError(f"{path} cannot be written: {error.strerror}.") from error
        raise


def _report(partial: Path) -> None:
    if partial.stat().st_size:
        print(f"What was done so far is in {partial}.", file=sys.stderr)
    else:
        partial.unlink()
