"""Process pool of the study: runs in parallel; a kill at any point loses no finished run."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from dermiq.programs.exits import STOPS, interrupted
from dermiq.schema import DataError, TrainingError
from study.execute import RECORD, execute
from study.plan import Run, Study
from study.record import Record, best, parsed

LOG = "log.txt"


class Board:
    """State of the study: which runs are finished, under way, ready or waiting, and how long the rest will take.

    Args:
        study: the study.
        root: where the runs have their directories.
    """

    def __init__(self, study: Study, root: Path) -> None:
        self.study, self.root = study, root
        self.runs = study.runs()
        self.waiting = {run.name: run for run in self.runs}
        self.records: dict[str, Record] = {}
        self.failed: dict[str, str] = {}
        self._took: dict[tuple[str, str, bool], list[float]] = {}

    def take_up(self) -> int:
        """Take over the runs that an earlier attempt finished with the same configurations; how many there are."""
        for run in self.runs:  # each after those that it needs, tuning first
            path, rate = self.root / run.name / RECORD, self.rate(run)
            if rate is None or not path.is_file():
                continue
            record = parsed(path.read_text(encoding="utf-8"))
            if record.fingerprint == self.study.fingerprint(run, rate) and self._has_start(run):
                self.finish(run, record)
        return len(self.records)

    def finish(self, run: Run, record: Record) -> None:
        """Note a finished run."""
        self.records[run.name] = record
        self.waiting.pop(run.name, None)
        self._took.setdefault(self._kind(run), []).append(sum(record.seconds.values()))

    def fail(self, run: Run, why: str) -> None:
        """Note a run that failed, and give up those that need it."""
        self.failed[run.name] = why
        self.waiting.pop(run.name, None)
        for other in list(self.waiting.values()):
            if other.start is not None and other.start.name == run.name:
                self.fail(other, f"needs {run.name}")

    def rate(self, run: Run) -> float | None:
        """A run's learning rate; None as long as tuning has not decided it."""
        if run.rate is not None:
            return run.rate
        testbed = self.study.content["testbeds"][run.testbed].get("rates_of", run.testbed)
        tuning = [each for each in self.runs if each.tuning and (each.testbed, each.variant) == (testbed, run.tuned_as)]
        if not tuning:
            raise DataError(f"{run.name} takes the rate of {run.tuned_as!r}, which is not tuned on {testbed}.")
        if any(each.name not in self.records for each in tuning):
            return None
        return best(self.records[each.name] for each in tuning).rate

    def ready(self) -> Iterator[tuple[Run, float]]:
        """Runs that can begin, with their rates, in the study's order."""
        for run in list(self.waiting.values()):
            rate = self.rate(run)
            if rate is not None and self._has_start(run):
                yield run, rate

    def seconds_left(self, jobs: int) -> float:
        """By what runs of the same kind took, divided by the processes."""
        known = [seconds for took in self._took.values() for seconds in took]
        if not known:
            return 0.0
        usual = sum(known) / len(known)
        left = [self._took.get(self._kind(run), [usual]) for run in self.waiting.values()]
        return sum(sum(took) / len(took) for took in left) / jobs

    def _has_start(self, run: Run) -> bool:
        return run.start is None or run.start.name in self.records

    def _kind(self, run: Run) -> tuple[str, str, bool]:
        return run.testbed, self.study.kind(run), run.tuning


def carry_out(board: Board, jobs: int, console: Console) -> None:
    """Execute all runs of the board that are not finished yet, `jobs` at a time in as many processes.

    Raises:
        TrainingError: if runs failed, naming them, once all others are finished; or if a process was killed.
    """
    if kept := board.take_up():
        console.print(f"{kept} of {len(board.runs)} runs are finished already.")
    with _progress(console) as progress:
        left = _clock(board.seconds_left(jobs)) if kept else "unknown"
        task = progress.add_task("study", total=len(board.runs), completed=kept, left=left)
        pool = ProcessPoolExecutor(jobs, mp_context=get_context("spawn"))
        try:
            for run in _finished(board, pool, jobs):
                left = _clock(board.seconds_left(jobs))
                progress.update(task, completed=len(board.runs) - len(board.waiting), left=left, description=run.name)
                if not console.is_terminal:
                    done = f"[{len(board.records)}/{len(board.runs)}]"
                    console.print(f"{done} {run.name}: {_outcome(board, run)}; about {left} left", highlight=False)
        except BaseException as error:
            for process in list(pool._processes.values()):  # else they would finish their runs first
                process.kill()
            if interrupted(error):
                kept = len(board.records)
                console.print(f"Interrupted. The same command goes on from the {kept} finished runs.", highlight=False)
            raise
        finally:
            pool.shutdown(cancel_futures=True)
    if board.failed:
        listed = "\n".join(f"  {name}: {why}" for name, why in board.failed.items())
        raise TrainingError(
            f"{len(board.failed)} runs failed; the others are finished:\n{listed}\n"
            f"Look at their logs (NAME.{LOG}) below {board.root}, and start the study again: it goes on from here."
        )


def _finished(board: Board, pool: ProcessPoolExecutor, jobs: int) -> Iterator[Run]:
    """Keep `jobs` runs under way; each run as it ends."""
    under_way: dict[Future[Record], Run] = {}
    while board.waiting:
        busy = {run.name for run in under_way.values()}
        ready = ((run, rate) for run, rate in board.ready() if run.name not in busy)
        for run, rate in islice(ready, jobs - len(under_way)):
            under_way[pool.submit(_in_worker, board.study, run, board.root, rate)] = run
        if not under_way:
            for run in list(board.waiting.values()):
                board.fail(run, "its rate is not known, since runs of the tuning failed")
            return
        for future in wait(under_way, return_when=FIRST_COMPLETED).done:
            run = under_way.pop(future)
            error = future.exception()
            if error is None:
                board.finish(run, future.result())
            elif isinstance(error, BrokenProcessPool):
                raise TrainingError(
                    f"A process of the study was killed (during {run.name}, perhaps for want of memory). Start the "
                    "study again: it goes on from the finished runs."
                ) from error
            else:
                board.fail(run, f"{type(error).__name__}: {error}")
            yield run


def _in_worker(study: Study, run: Run, root: Path, rate: float) -> Record:
    """Execute a run in this process, what it says going to its log."""
    for number in STOPS:
        signal.signal(number, signal.SIG_IGN)  # they are the parent's to answer
    log = root / f"{run.name}.{LOG}"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(file.fileno(), stream.fileno())
        return execute(study, run, root, rate)


def _progress(console: Console) -> Progress:
    left = TextColumn("left: {task.fields[left]}")
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), left, TextColumn("{task.description}"))
    return Progress(*columns, console=console, disable=not console.is_terminal)


def _outcome(board: Board, run: Run) -> str:
    if run.name in board.failed:
        return f"failed ({board.failed[run.name]})"
    return f"{sum(board.records[run.name].seconds.values()):.0f} s"


def _clock(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"
