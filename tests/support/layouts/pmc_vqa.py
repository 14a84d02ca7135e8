"""PMC-VQA in small: options with letters before them, a quoted newline, options that are letters themselves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dermiq.datamodules.sources.pmc_vqa import PMCVQA
from support.small_data import write_csv, write_jpeg

HEADER = (
    "Figure_path", "Caption", "Question", "Choice A", "Choice B", "Choice C", "Choice D", "Answer", "Answer_label",
)  # fmt: skip
HEADER_2 = (
    "index", "Figure_path", "Caption", "Question", "Choice A", "Choice B", "Choice C", "Choice D", "Answer", "split",
)  # fmt: skip
ROWS = (
    (
        "PMC1064097_F1.jpg", "Breast, \"focal\" uptake.\nSecond line.", " What is the uptake pattern in the breast? ",
        " A:Diffuse uptake pattern ", " B:Focal uptake pattern ", " C:No uptake pattern ",
        " D:Cannot determine from the information given ", "Focal uptake pattern", "B",
    ),
    ("PMC1064097_F2.jpg", "c", "Which panel shows a cyst?", " A:B", " B:A", " C:C", " D:D", "B", "A"),
    ("PMC1079854_F10.jpg", "c", "Which stain was used?", "A:H&E", "B: Gram", "C:", "D:PAS", "PAS", "D"),
)  # fmt: skip


def write(root: Path, **options: Any) -> PMCVQA:
    """Three questions of version 1 and one of version 2."""
    write_csv(root / "train.csv", HEADER, ROWS)
    second = ("0", "PMC1064097_F2.jpg", "c", "Which gender?", " A: male", " B: female", " C:", " D:", "B", "train")
    write_csv(root / "train_2.csv", HEADER_2, [second])
    for seed, row in enumerate(ROWS):
        write_jpeg(root / "images" / row[0], seed)
    return PMCVQA(str(root), **options)
