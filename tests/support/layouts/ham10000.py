"""HAM10000 in small."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.ham10000 import HAM10000
from support.small_data import write_ham10000


def write(root: Path) -> HAM10000:
    """One lesion of every diagnosis, photographed twice."""
    return HAM10000(str(write_ham10000(root, lesions_per_diagnosis=1)))
