"""A table of a clinic's own, with a byte order mark, semicolons and Windows' line ends."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.general.tabular import TabularSource
from support.small_data import write_jpeg

ROWS = (
    "photo;diagnosis;patient;tone;site",
    "1.jpg;AK;007;2;forearm",
    '1.jpg;Melanoma;007;;"left,\nupper arm"',
    "2.jpg;naevus;8;-1;",
    "sub/3.jpg;lumped;;V;back",
)


def write(root: Path) -> TabularSource:
    """Four photographs of three patients, one of them nameless."""
    (root / "cases.csv").write_bytes(b"\xef\xbb\xbf" + "\r\n".join(ROWS).encode() + b"\r\n")
    for seed, name in enumerate(("1.jpg", "2.jpg", "sub/3.jpg")):
        write_jpeg(root / "photographs" / name, seed)
    return TabularSource(
        str(root / "cases.csv"),
        "photo",
        "diagnosis",
        image_root=str(root / "photographs"),
        labels={
            "AK": "actinic keratosis",
            "Melanoma": "melanoma",
            "naevus": "melanocytic nevus",
            "lumped": ["angiokeratoma", "cherry angioma"],
        },
        group_column="patient",
        skin_type_column="tone",
        skin_type_how="self-reported",
        site_column="site",
        licence="our own",
        attribution="the clinic",
        dataset="clinic",
    )
