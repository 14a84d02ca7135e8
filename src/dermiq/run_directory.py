"""Where a run keeps what outlives it: its adapter for the stage that goes on from it, its checkpoint, its record."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dermiq.files import regular_bytes
from dermiq.programs.exits import reason
from dermiq.schema import DataError

ADAPTER, CONFIG, CHECKPOINTS = "adapter", "config.yaml", "checkpoints"
LAST = f"{CHECKPOINTS}/last.ckpt"
ADAPTER_CONFIG = "adapter_config.json"
AGAIN = "Test it again."


def found_adapter(path: str | Path) -> Path | None:
    """The adapter's directory, given itself, its run's directory or a file in either; None if there is none."""
    given = Path(path).expanduser()
    if not given.exists():
        return None
    folder = given if given.is_dir() else given.parent
    places = [folder, folder / ADAPTER]
    if folder.name == CHECKPOINTS:
        places.append(folder.parent / ADAPTER)
    return next((place for place in places if (place / ADAPTER_CONFIG).is_file()), None)


def no_adapter(path: str | Path) -> str:
    """Why there is no adapter to go on from."""
    given = Path(path).expanduser()
    folder = given if given.is_dir() else given.parent
    run = folder.parent if folder.name in (CHECKPOINTS, ADAPTER) else folder
    if given.exists() and (run / CONFIG).is_file():
        return (
            f"The run {run} has no {ADAPTER}/ yet: it is written with the first checkpoint. Train it further, or name "
            "another run with --model.backbone.adapter_path."
        )
    return f"{path} holds no {ADAPTER_CONFIG}. adapter_path takes the {ADAPTER}/ of a stage's run."


def hand_over(checkpoint: str | Path | None) -> str:
    """The option that takes the adapter beside a checkpoint."""
    found = found_adapter(checkpoint) if checkpoint else None
    return f"--model.backbone.adapter_path={found or f'RUN/{ADAPTER}'}"


def is_adapter_file(path: str | Path) -> bool:
    """True for a file in an adapter's directory."""
    return (Path(path).parent / ADAPTER_CONFIG).is_file()


def no_checkpoint(path: str | Path) -> str:
    """What to give instead of something that is no file of a checkpoint: a run, an adapter, nothing at all."""
    given = Path(path).expanduser()
    folder = given if given.is_dir() else given.parent
    if (folder / ADAPTER_CONFIG).is_file():
        return f"{path} is an adapter and no checkpoint. To go on from it: {hand_over(given)}"
    for place in (given / LAST, given / Path(LAST).name):
        if place.is_file():
            return f"{path} is a directory. Its checkpoint: --ckpt_path={place}"
    if given.is_dir():
        return f"{path} is a directory and no checkpoint. Name the file, or a run with --ckpt_path=last."
    return (
        f"There is no checkpoint {path}. Leave --ckpt_path out to start anew, or name the run's directory with "
        "--trainer.default_root_dir."
    )


def read_metrics(path: Path) -> dict[str, float]:
    """The numbers of a ``metrics.json``.

    Raises:
        FileNotFoundError: if it is not there.
        DermIQError: if it cannot be read, or is not an object of finite numbers.
    """
    content = regular_bytes(path)
    try:
        found = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise unreadable(path, error) from error
    if not isinstance(found, dict):
        raise DataError(f"{path} holds no names with numbers, but a {type(found).__name__}. {AGAIN}")
    return {name: _number(path, name, value) for name, value in found.items()}


def unreadable(path: Path, error: BaseException) -> DataError:
    """What to raise for a file of a test that a reader failed on."""
    return DataError(f"{path} cannot be read ({reason(error)}). {AGAIN}")


def _number(path: Path, name: str, value: Any) -> float:
    try:
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(number := float(value)):
            return number
    except OverflowError:
        pass
    raise DataError(f"{path}: {name} is {str(value)[:40]!r}, which is no finite number. {AGAIN}")
