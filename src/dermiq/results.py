"""The numbers that a test leaves in a run's ``metrics.json``, read back."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dermiq.exits import reason
from dermiq.files import regular_bytes
from dermiq.schema import DataError

AGAIN = "Test it again."


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
