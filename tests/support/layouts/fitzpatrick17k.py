"""Fitzpatrick17k in small: hashes and URL names as files, -1 skin types, no URL, a wrongly labelled row."""

from __future__ import annotations

from hashlib import md5
from pathlib import Path

from dermiq.datamodules.sources.fitzpatrick17k import Fitzpatrick17k
from support.small_data import write_csv, write_jpeg

HEADER = (
    "md5hash",
    "fitzpatrick_scale",
    "fitzpatrick_centaur",
    "label",
    "nine_partition_label",
    "three_partition_label",
    "qc",
    "url",
    "url_alphanum",
)
# scale, centaur, label, nine, three, qc, page of the atlas; the file is named after the hash, the URL, or not there
IMAGES = (
    ("3", "3", "psoriasis", "inflammatory", "non-neoplastic", "", "psoriasis12.jpg", "hash"),
    ("-1", "2", "erythema annulare centrifigum", "inflammatory", "non-neoplastic", "", "eac1.jpg", "hash"),
    ("5", "-1", "melanoma", "malignant melanoma", "malignant", "", "", "url"),
    ("2", "1", "halo nevus", "benign melanocyte", "benign", "3 Wrongly labelled", "halonevus2.jpg", "hash"),
    ("1", "1", "neutrophilic dermatoses", "inflammatory", "non-neoplastic", "1 Diagnostic", "sweet7.jpg", "url"),
    ("6", "6", "tick bite", "inflammatory", "non-neoplastic", "5 Potentially", "tickbite3.jpg", "none"),
    ("4", "4", "telangiectases", "genodermatoses", "non-neoplastic", "", "bloom4.jpg", "hash"),
)


def hash_of(number: int) -> str:
    """The hash that stands for a photograph."""
    return md5(f"photograph {number}".encode()).hexdigest()


def write(root: Path) -> Fitzpatrick17k:
    """Seven rows, one of which is left out; six photographs."""
    rows = []
    for number, (*told, page, named) in enumerate(IMAGES):
        url = f"https://www.dermaamin.com/site/images/clinical-pic/{page}" if page else ""
        alphanumeric = f"httpwwwdermaamincomsiteimagesclinicalpic{(page or f'm{number}').replace('.', '')}.jpg"
        rows.append((hash_of(number), *told, url, alphanumeric))
        if named != "none":
            write_jpeg(root / "images" / (f"{hash_of(number)}.jpg" if named == "hash" else alphanumeric), number)
    write_csv(root / "fitzpatrick17k.csv", HEADER, rows)
    return Fitzpatrick17k(str(root))
