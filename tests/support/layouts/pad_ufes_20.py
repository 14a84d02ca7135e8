"""PAD-UFES-20 in small: misspelt skin type, True, False, UNK and blanks, three folders, one of them nested, PNG."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dermiq.datamodules.sources.pad_ufes_20 import PADUFES20
from support.small_data import write_csv

HEADER = (
    "patient_id lesion_id smoke drink background_father background_mother age pesticide gender skin_cancer_history "
    "cancer_history has_piped_water has_sewage_system fitspatrick region diameter_1 diameter_2 diagnostic itch grew "
    "hurt changed bleed elevation img_id biopsed"
).split()
KNOWN = ["ITALY", "ITALY", "69", "False", "MALE", "False", "True", "True", "True"]
SIGNS = ["True", "UNK", "False", "UNK", "False", "True"]
# patient, lesion, skin type, region, diagnosis, number of the image, folder
IMAGES = (
    ("PAT_1516", "1765", "", "ARM", "NEV", "530", "imgs_part_1"),
    ("PAT_771", "1491", "3.0", "FACE", "BCC", "390", "imgs_part_1"),
    ("PAT_771", "1491", "3.0", "FACE", "BCC", "391", "imgs_part_2"),
    ("PAT_771", "1492", "3.0", "NOSE", "ACK", "392", "imgs_part_2"),
    ("PAT_46", "881", "1.0", "NECK", "SCC", "939", "imgs_part_3/imgs_part_3"),
    ("PAT_1545", "1867", "6.0", "FOREARM", "SEK", "547", "imgs_part_3/imgs_part_3"),
    ("PAT_684", "1302", "2.0", "BACK", "MEL", "588", "imgs_part_3/imgs_part_3"),
)


def write(root: Path) -> PADUFES20:
    """Seven images of five patients."""
    rows = []
    for number, (patient, lesion, skin, region, diagnosis, image, folder) in enumerate(IMAGES):
        file = f"{patient}_{lesion}_{image}.png"
        told = ["True", "False", *KNOWN] if skin else [""] * 2 + ["", "", "8", *[""] * 6]
        sizes = ["6.0", "5.0"] if skin else ["", ""]
        signs = SIGNS if skin else ["False"] * 6
        rows.append((patient, lesion, *told, skin, region, *sizes, diagnosis, *signs, file, str(bool(skin))))
        path = root / "images" / folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(120, 220, (30, 40, 4), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    write_csv(root / "metadata.csv", HEADER, rows)
    return PADUFES20(str(root))
