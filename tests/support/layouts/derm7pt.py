"""derm7pt in small: paths in another case than the files', row positions as split, one photograph in two roles."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.derm7pt import Derm7pt
from support.small_data import write_csv, write_jpeg

HEADER = (
    "case_num",
    "diagnosis",
    "seven_point_score",
    "pigment_network",
    "streaks",
    "pigmentation",
    "regression_structures",
    "dots_and_globules",
    "blue_whitish_veil",
    "vascular_structures",
    "level_of_diagnostic_difficulty",
    "elevation",
    "location",
    "sex",
    "management",
    "clinic",
    "derm",
    "case_id",
    "notes",
)
# diagnosis, score, the seven points in the order of the header, clinical and dermoscopic photograph
CASES = (
    (
        "basal cell carcinoma",
        0,
        "absent absent absent absent absent absent arborizing",
        "NEL/NEL025.JPG",
        "NEL/Nel026.jpg",
    ),
    ("blue nevus", 2, "absent absent absent absent absent present absent", "Nal/NAL001.jpg", "Nal/NAL002.jpg"),
    ("clark nevus", 0, "typical absent absent absent absent absent absent", "Aal/Aal003.jpg", "Aal/Aal004.jpg"),
    ("clark nevus", 3, "atypical irregular absent absent absent absent comma", "Aal/Aal005.jpg", "Aal/Aal006.jpg"),
    ("combined nevus", 1, "typical absent absent absent irregular absent absent", "Aal/Aal007.jpg", "Aal/Aal008.jpg"),
    ("congenital nevus", 0, "typical absent absent absent regular absent absent", "Aal/Aal009.jpg", "Aal/Aal010.jpg"),
    ("dermal nevus", 0, "absent absent absent absent absent absent comma", "Aal/Aal011.jpg", "Aal/Aal012.jpg"),
    ("dermatofibroma", 0, "typical absent absent absent absent absent absent", "Aal/Aal013.jpg", "Aal/Aal014.jpg"),
    ("lentigo", 0, "typical absent absent absent absent absent absent", "Aal/Aal015.jpg", "Aal/Aal015.jpg"),
    ("melanoma (in situ)", 2, "atypical absent absent absent absent absent absent", "Aal/Aal017.jpg", "Aal/Aal018.jpg"),
    ("melanoma (less than 0.76 mm)", 1, "typical regular absent blue_areas absent absent absent", "A/1.jpg", "A/2.jpg"),
    ("melanoma metastasis", 2, "absent absent absent absent absent absent linear_irregular", "A/3.jpg", "A/4.jpg"),
    ("melanosis", 0, "absent absent diffuse_regular absent absent absent absent", "A/5.jpg", "A/6.jpg"),
    ("miscellaneous", 0, "absent absent absent absent absent absent absent", "A/7.jpg", "A/8.jpg"),
    ("recurrent nevus", 1, "absent irregular absent absent absent absent absent", "A/9.jpg", "A/10.jpg"),
    ("reed or spitz nevus", 1, "absent irregular diffuse_regular absent absent absent absent", "A/9.jpg", "A/12.jpg"),
    ("seborrheic keratosis", 0, "absent absent absent absent regular absent hairpin", "A/13.jpg", "A/14.jpg"),
    ("vascular lesion", 0, "absent absent absent absent absent absent absent", "A/15.jpg", "A/16.jpg"),
)
SPLIT = {"train": range(0, 18, 2), "valid": (1, 5, 9, 13), "test": (3, 7, 11, 15, 17)}


def write(root: Path) -> Derm7pt:
    """Eighteen cases; the second case's files are written in another case than their paths."""
    release, rows = root / "release_v0", []
    for number, (diagnosis, score, points, clinic, derm) in enumerate(CASES):
        seven = [point.replace("_", " ") for point in points.split()]
        rest = ("medium", "palpable", "lower limbs", "female", "excision", clinic, derm, "", "")
        rows.append((number + 1, diagnosis, score, *seven, *rest))
        for view, name in enumerate((clinic, derm)):
            file = name.upper() if number == 1 else name
            write_jpeg(release / "images" / file, 2 * number + view)
    write_csv(release / "meta" / "meta.csv", HEADER, rows)
    for part, positions in SPLIT.items():
        write_csv(release / "meta" / f"{part}_indexes.csv", ("indexes",), [(position,) for position in positions])
    return Derm7pt(str(release))
