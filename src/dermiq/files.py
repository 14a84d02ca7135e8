"""Files that survive a kill: replaced as a whole, or grown by lines of which the last one alone may be torn."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from dermiq.schema import DermIQError

PARTIAL = ".partial"

Row = dict[str, Any]
R = TypeVar("R", bound=Mapping[str, Any])
Changes = dict[str, tuple[Any, Any]]  # name -> (value in the file, value now)


@contextmanager
def replacing(path: str | Path, keep: bool = False) -> Iterator[IO[bytes]]:
    """A temporary binary file beside `path`, which replaces it at the end.

    The content is on the disk before the file gets its name: after a power loss, too, `path` is the old file or the
    new one. Parent directories are made. One process at a time may replace a file: what another
    was killed over is overwritten.

    Args:
        path: of the file.
        keep: after a failure, leave what was written so far beside it, as ``NAME.partial``.

    Raises:
        OSError: if it cannot be written; `path` is untouched and, without `keep`, nothing is left beside it.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    try:
        with partial.open("wb") as file:
            yield file
        sync(partial)
        partial.replace(target)
    except BaseException:
        if not keep:
            partial.unlink(missing_ok=True)
        raise


@contextmanager
def replacing_directory(path: str | Path) -> Iterator[Path]:
    """A temporary directory beside `path`, yet to be made, whose files replace those of `path` at the end.

    Each is replaced as a whole, and all at once where there is none yet. Parent directories are made. One process at a
    time may replace a directory: what another was killed over is removed.

    Raises:
        OSError: if it cannot be written; the files in `path` are the old ones or the new ones, each whole.
    """
    target = Path(path)
    fresh = target.with_name(target.name + PARTIAL)
    shutil.rmtree(fresh, ignore_errors=True)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield fresh
        files = [each for each in sorted(fresh.rglob("*")) if each.is_file()]
        for file in files:
            sync(file)
        if target.exists() and any(target.iterdir()):
            for file in files:
                file.replace(target / file.relative_to(fresh))
        elif files:
            fresh.replace(target)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def sync(path: str | Path) -> None:
    """Wait until a file's content is on the disk.

    Raises:
        OSError: if it does not get there.
    """
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_atomically(path: str | Path, content: str | bytes) -> None:
    """Replace the file `path` by `content` (text as UTF-8); see `replacing`.

    Raises:
        DermIQError: if it cannot be written; the file that was there before is untouched.
    """
    with _explained(path), replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def append_lines(path: str | Path, lines: Iterable[str]) -> None:
    """Add lines (without their ends, as UTF-8) to a file, in one write.

    A kill or a power loss may tear the last line and no other: Linux breaks off even a single write, between two
    pages. `whole_lines` leaves a torn line out, and the next call cuts it off first. The file and its parent
    directories are made where they are missing. One process at a time may append.

    Raises:
        DermIQError: if not all could be written; the file holds the lines from before.
    """
    content = "".join(f"{line}\n" for line in lines).encode()
    with _explained(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "ab+", buffering=0) as file:
            size = _whole_size(file)
            file.truncate(size)
            if file.write(content) != len(content):
                file.truncate(size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def regular_bytes(path: str | Path) -> bytes:
    """The content of a regular file: reading a pipe or a device would block for ever.

    Raises:
        FileNotFoundError: if it is not there.
        DermIQError: if it is no regular file, or cannot be read.
    """
    target = Path(path)
    try:
        if not stat.S_ISREG(target.stat().st_mode):
            kind = "a directory" if target.is_dir() else "a pipe or a device"
            raise DermIQError(f"{path} is {kind}, where a file was expected. Name a file, or move it away.")
        return target.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DermIQError(f"{path} cannot be read ({error.strerror}). Make it readable, or move it away.") from error


def whole_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file, without their ends and without a torn last one; none where there is no file.

    Raises:
        UnicodeDecodeError: if a whole line is no UTF-8.
    """
    target = Path(path)
    if not target.exists():
        return []
    return [line.decode() for line in target.read_bytes().split(b"\n")[:-1]]


class ResumableLines(Generic[R]):
    """A JSONL file that is resumed: a header, which says what the rows depend on, then rows, appended as whole lines.

    A kill may tear the last line, which is then left out and written again. One process at a time may use a file.

    Args:
        path: of the file; begun where it is missing or empty.
        header: ready for JSON; what is not becomes text.
        read: (path) -> header and rows of a file; raises what it likes where one is damaged.
        refusal: what to raise where the header of the file is another one.
        ignored: what may differ between headers, the names of nested mappings joined by dots, as in `Changes`.

    Attributes:
        path: of the file.
        rows: what it held in the beginning.
    """

    def __init__(
        self,
        path: Path,
        header: Mapping[str, Any],
        read: Callable[[Path], tuple[Row, list[R]]],
        refusal: Callable[[Path, Changes], DermIQError],
        ignored: Container[str] = (),
    ) -> None:
        self.path = path
        self.rows: list[R] = []
        line = json.dumps(header, default=str)
        if path.is_file() and not line.encode().startswith(path.read_bytes()):
            before, self.rows = read(path)
            there, here = _flat(before), _flat(json.loads(line))
            changes = {
                name: (there.get(name), here.get(name))
                for name in {**there, **here}
                if name not in ignored and there.get(name) != here.get(name)
            }
            if changes:
                raise refusal(path, changes)
        else:
            append_lines(path, [line])

    def append(self, rows: Iterable[R]) -> None:
        """Add rows.

        Raises:
            DermIQError: if not all could be written; the file holds the rows from before.
        """
        append_lines(self.path, (json.dumps(row, ensure_ascii=False) for row in rows))


def _flat(header: Mapping[str, Any]) -> Row:
    """A header without nesting."""
    flat: Row = {}
    for name, value in header.items():
        flat |= {f"{name}.{part}": each for part, each in value.items()} if isinstance(value, dict) else {name: value}
    return flat


@contextmanager
def _explained(path: str | Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DermIQError(
            f"{path} could not be written ({error.strerror}); what it held before is whole. Free space on this disk, "
            "or name a directory that may be written to, and run the same again."
        ) from error


def _whole_size(file: IO[bytes], block: int = 1 << 16) -> int:
    """Bytes up to the end of the last whole line."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - block)
        file.seek(start)
        last = file.read(end - start).rfind(b"\n")
        if last >= 0:
            return start + last + 1
        end = start
    return 0
