"""Exclusive use of a run directory: a lock, and the refusal or setting aside of what another run left there."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from dermiq.files import write_atomically
from dermiq.programs.exits import reason
from dermiq.run_directory import RunDirectory
from dermiq.schema import TrainingError

_held: set[int] = set()


def _release() -> None:
    """Close the locks in a forked process, which would keep them when the run is killed."""
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_release)


class Lock:
    """File lock on a directory, which is made where it is missing; a kill releases it.

    Where the file system has no locks, it says so and goes on.

    Args:
        root: the directory.

    Raises:
        TrainingError: on entering, if another process has it, or nothing can be written there.
    """

    def __init__(self, root: Path) -> None:
        self.root, self._path = root, RunDirectory(root).lock
        self._file = -1

    def __enter__(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            while self._file < 0:
                self._file = self._taken()
        except OSError as error:
            raise TrainingError(
                f"{self.root} cannot be written to ({reason(error)}). Name another directory, or free space and mend "
                "permissions there."
            ) from error
        _held.add(self._file)

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._path.unlink()
        _held.discard(self._file)
        os.close(self._file)
        self._file = -1

    def _taken(self) -> int:
        """The open file that carries the lock; -1 if another process has just given it up."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 300).decode(errors="replace").strip() or "another process"
            os.close(file)
            raise TrainingError(
                f"{self.root} is in use by {holder}. Wait for it to end, or name another directory."
            ) from error
        except OSError as error:
            rank_zero_warn(f"{self.root} cannot be locked ({reason(error)}): let no other process write there.")
        if not self._path.exists() or not os.path.samestat(os.fstat(file), self._path.stat()):
            os.close(file)
            return -1
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        return file


@dataclass(frozen=True)
class Command:
    """The subcommand that is about to run in a directory.

    Attributes:
        name: fit, validate, test or predict.
        root: the directory.
        checkpoint: given with ``--ckpt_path``; None where there is none.
        paths: the values of its options that name something that exists.
        adapter: given with ``adapter_path``, likewise.
        start_over: whether an earlier run may be set aside.
    """

    name: str
    root: Path
    checkpoint: Path | None
    adapter: Path | None
    paths: tuple[Path, ...]
    start_over: bool

    @classmethod
    def parsed(cls, name: str, config: Mapping[str, Any]) -> Command:
        """The command of a parsed configuration."""
        root = Path(config["trainer"]["default_root_dir"] or ".")
        given = config.get("ckpt_path")
        adapter = config["model"]["init_args"]["backbone"]["init_args"].get("adapter_path")
        return cls(
            name=name,
            root=root,
            checkpoint=None if not given else RunDirectory(root).last_checkpoint if given == "last" else Path(given),
            adapter=Path(adapter) if adapter else None,
            paths=tuple(Path(text) for text in _strings(config) if os.path.exists(text)),
            start_over=bool(config.get("start_over")),
        )


class ExclusiveRun(Callback):
    """Exclusive use of a run's directory: as a context of the whole command, and as a callback of its trainer.

    On entering, the directory is locked, and a command is refused that would mix two runs there. What an earlier run
    left that saved nothing is set aside, and so is a whole run with ``--start_over``. Once a step of training is made,
    results of the adapter before it are set aside as well. Where training fails before its first step, nothing new is
    left, so that the command can be repeated.

    Args:
        command: what is run there.

    Raises:
        TrainingError: on entering, if the command is refused.
    """

    def __init__(self, command: Command) -> None:
        self.command, self.root, self.files = command, command.root, RunDirectory(command.root)
        self._lock = Lock(self.root)
        self._stepped = False
        self._config: bytes | None = None
        self._before: set[Path] = set()

    def __enter__(self) -> ExclusiveRun:
        self._lock.__enter__()
        try:
            self._clear()
        except BaseException:
            self._lock.__exit__()
            raise
        config = self.files.config_file
        self._before = set(self.root.glob("*")) | set(self.root.glob("*/*"))
        self._config = config.read_bytes() if config.is_file() else None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is not None and self.command.name == "fit" and not self._stepped:
            self._undo()
        self._lock.__exit__()
        if error is not None:
            with suppress(OSError):  # it is not empty, or gone
                self.root.rmdir()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Set results aside that are of the adapter before the first step."""
        if not self._stepped and trainer.is_global_zero:
            set_aside(self.root, self.files.results(), "Results of the adapter before this training")
        self._stepped = True

    def _clear(self) -> None:
        """Refuse or set aside what another run left."""
        holds_run = bool(_found(self.files.trained))
        goes_on = self.command.checkpoint is not None and _inside(self.command.checkpoint, self.root)
        if self.command.name != "fit":
            if holds_run and not goes_on:
                self._keep_results()
        elif self.command.start_over:
            self._refuse_start_over(goes_on)
            set_aside(self.root, (self.files.config_file, *self._made()), "The earlier run")
        elif holds_run and not goes_on and not self._requeued():
            self._refuse_training()
        elif not goes_on and not holds_run and _found(self.files.records):
            set_aside(
                self.root,
                (self.files.config_file, *self.files.records),
                "What an earlier run left that saved no checkpoint",
            )

    def _refuse_training(self) -> None:
        has_checkpoint = self.files.last_checkpoint.is_file()
        if self.command.checkpoint is not None:
            first = f"{self.root} holds another run than {self.command.checkpoint} is of."
        else:
            first = f"{self.root} holds a run already."
        resume = "Go on with it by --ckpt_path=last, train" if has_checkpoint else "Train"
        raise TrainingError(
            f"{first} {resume} in another directory (--trainer.default_root_dir=DIR), or begin anew here with "
            f"--start_over, which moves the earlier run to {_next(self.root)}."
        )

    def _keep_results(self) -> None:
        """Set aside the results of the run in this directory, where another model is judged there."""
        adapter = self.command.adapter
        if self.command.checkpoint is None and adapter is not None and _inside(adapter, self.root):
            return
        set_aside(self.root, self.files.results(self.command.name), "Results of the run")
        judged = self.command.checkpoint or adapter or "the model without an adapter"
        rank_zero_info(
            f"{self.root} holds a trained run, and this judges {judged}. To judge the run, pass --ckpt_path=last; else "
            "another --trainer.default_root_dir keeps apart what belongs to different adapters."
        )

    def _refuse_start_over(self, goes_on: bool) -> None:
        if goes_on:
            raise TrainingError("--start_over begins anew and --ckpt_path goes on: leave one of them out.")
        moved = _found(self._made())
        used = [path for path in self.command.paths if any(_inside(path, each) for each in moved)]
        if used:
            raise TrainingError(
                f"This run needs {used[0]}, a part of the run that --start_over would set aside. Name another "
                "directory with --trainer.default_root_dir."
            )

    def _undo(self) -> None:
        """Remove what this command has made, and put the record of the run before back."""
        for written in (self.files.config_file, *self.files.records):
            for path in {written, *written.glob("*")} - self._before:
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        if self._config is not None:
            write_atomically(self.files.config_file, self._config)

    def _made(self) -> list[Path]:
        """What a run makes, in the order in which it is moved: as long as there are checkpoints, it is a run."""
        return [*self.files.results(), *self.files.records, *self.files.trained]

    def _requeued(self) -> bool:
        """Whether SLURM has started the command again, in which case Lightning goes on by itself."""
        return bool(SLURMEnvironment.detect() and self.files.requeued_checkpoints)


def set_aside(root: Path, paths: Iterable[Path], what: str) -> None:
    """Move paths in a directory into the next folder of its ``earlier/``, saying so; nothing is deleted.

    Raises:
        TrainingError: if it cannot be moved.
    """
    found = _found(paths)
    if not found:
        return
    folder = _next(root)
    try:
        folder.mkdir(parents=True)
        for path in found:
            path.rename(folder / path.name)
    except OSError as error:
        raise TrainingError(
            f"{root} could not be cleared for a new run ({reason(error)}). Name another --trainer.default_root_dir."
        ) from error
    rank_zero_info(f"{what} in {root}: moved to {folder}.")


def _strings(value: Any) -> Iterator[str]:
    """All texts in nested mappings and lists, such as a configuration."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _strings(each)
    elif isinstance(value, list | tuple):
        for each in value:
            yield from _strings(each)


def is_leader() -> bool:
    """Whether this process acts for all processes of its run."""
    return int(rank_zero_only.rank) == 0  # type: ignore[attr-defined]  # Lightning sets it


def _found(paths: Iterable[Path]) -> list[Path]:
    """Those that are there; folders that are empty do not count."""
    return [path for path in paths if path.exists() and (not path.is_dir() or any(path.iterdir()))]


def _next(root: Path) -> Path:
    earlier = RunDirectory(root).earlier
    taken = {path.name for path in earlier.glob("*")}
    return earlier / str(next(n for n in range(1, len(taken) + 2) if str(n) not in taken))


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
