"""DDI in small: hyphenated diseases, two skin types at once, PNG beside the table and in images/, a byte order mark."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.ddi import DDI
from support.small_data import write_csv, write_jpeg

HEADER = ("", "DDI_ID", "DDI_file", "skin_tone", "malignant", "disease")
IMAGES = (
    ("56", "TRUE", "melanoma-in-situ"),
    ("56", "FALSE", "blue-nevus"),
    ("34", "TRUE", "squamous-cell-carcinoma-keratoacanthoma"),
    ("12", "FALSE", "seborrheic-keratosis-irritated"),
    ("12", "TRUE", "nodular-melanoma-(nm)"),
    ("34", "FALSE", "scar"),
)


def file_of(number: int) -> str:
    """The file of a photograph."""
    return f"{number + 1:06d}.png"


def write(root: Path) -> DDI:
    """Six photographs, two of them still beside the table."""
    rows = []
    for number, (tone, malignant, disease) in enumerate(IMAGES):
        rows.append((number, number + 1, file_of(number), tone, malignant, disease))
        write_jpeg((root if number < 2 else root / "images") / file_of(number), number)
    table = write_csv(root / "ddi_metadata.csv", HEADER, rows)
    table.write_text(table.read_text(), encoding="utf-8-sig")
    return DDI(str(root))
