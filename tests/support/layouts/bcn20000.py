"""BCN20000 in small: the new export beside an old one, undiagnosed rows, a licence of its own for every image."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.bcn20000 import BCN20000
from support.small_data import write_csv, write_jpeg

CLINIC = "Department of Dermatology, Hospital Clínic de Barcelona"
SHARED = ("isic_id", "attribution", "copyright_license", "age_approx", "anatom_site_general", "anatom_site_special")
OLD = (
    *SHARED,
    "benign_malignant",
    "concomitant_biopsy",
    "diagnosis",
    "diagnosis_confirm_type",
    "image_type",
    "lesion_id",
    "melanocytic",
    "sex",
)
NEW = (
    *SHARED,
    "concomitant_biopsy",
    "diagnosis_1",
    "diagnosis_2",
    "diagnosis_3",
    "diagnosis_confirm_type",
    "image_type",
    "lesion_id",
    "melanocytic",
    "sex",
)
MELANOMA = "Malignant melanocytic proliferations (Melanoma)"
EPIDERMAL = "Benign epidermal proliferations"
FIBROUS = "Benign soft tissue proliferations - Fibro-histiocytic"
FOLLICULAR = "Malignant adnexal epithelial proliferations - Follicular"
NAMES = (  # of the new export, and that of the old one
    ("Benign", "Benign melanocytic proliferations", "Nevus", "nevus"),
    ("Benign", "Benign melanocytic proliferations", "Nevus", "nevus"),
    ("Malignant", MELANOMA, "Melanoma, NOS", "melanoma"),
    ("Malignant", MELANOMA, "Melanoma metastasis", "melanoma metastasis"),
    ("Malignant", FOLLICULAR, "Basal cell carcinoma", "basal cell carcinoma"),
    ("Malignant", "Malignant epidermal proliferations", "Squamous cell carcinoma, NOS", "squamous cell carcinoma"),
    ("Indeterminate", "Indeterminate epidermal proliferations", "Solar or actinic keratosis", "actinic keratosis"),
    ("Benign", EPIDERMAL, "Seborrheic keratosis", "seborrheic keratosis"),
    ("Benign", EPIDERMAL, "Solar lentigo", "solar lentigo"),
    ("Benign", FIBROUS, "Dermatofibroma", "dermatofibroma"),
    ("Benign", FIBROUS, "Scar", "scar"),
    ("Benign", "Benign soft tissue proliferations - Vascular", "", "vascular lesion"),
    ("", "", "", ""),
)


def write(root: Path) -> BCN20000:
    """The new export."""
    return write_export(root, new=True)


def write_export(root: Path, new: bool) -> BCN20000:
    """One export; the first two images are of one lesion, the third of an unknown one, the last without diagnosis."""
    rows = []
    for number, (*path, name) in enumerate(NAMES):
        lesion = "" if number == 2 else f"IL_{max(number, 1):07d}"
        licence = "CC-BY" if number == 4 else "CC-BY-NC"
        shared = (f"ISIC_{53453 + number:07d}", CLINIC, licence, "55.0", "anterior torso", "")
        told = ("True", *path) if new else ("", "True", name)
        rows.append((*shared, *told, "histopathology", "dermoscopic", lesion, "False", "female"))
        write_jpeg(root / "ISIC-images" / f"{shared[0]}.jpg", number)
    date = "2025-07-22" if new else "2023-11-02"
    write_csv(root / f"bcn20000_metadata_{date}.csv", NEW if new else OLD, rows)
    return BCN20000(str(root))
