"""PathVQA in small, as the Hugging Face Hub has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermiq.datamodules.sources.path_vqa import PathVQA
from support.small_data import write_questions

PARTS = {
    "train": ((0, "where are liver stem cells located?", "in the canals of hering"), (0, "is this a cell?", "yes")),
    "validation": (
        (1, "what is present?", "hematologic"),
        (1, "what does this show?", "the spleen, with 'fibrosis'"),
    ),
    "test": ((2, "how many glands are there?", "3"), (3, "is there necrosis?", "no")),
}


def write(root: Path, **options: Any) -> PathVQA:
    """Two questions in each part."""
    for part, rows in PARTS.items():
        write_questions(root / "data" / f"{part}-00000-of-00001.parquet", rows)
    return PathVQA(str(root), **options)
