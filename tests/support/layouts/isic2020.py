"""ISIC 2020 in small: patients with several lesions, mostly undiagnosed, and the list of duplicates."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.isic2020 import ISIC2020
from support.small_data import write_csv, write_jpeg

HEADER = (
    "image_name",
    "patient_id",
    "lesion_id",
    "sex",
    "age_approx",
    "anatom_site_general_challenge",
    "diagnosis",
    "benign_malignant",
    "target",
)
ROWS = (
    ("ISIC_2637011", "IP_7279968", "IL_7972535", "male", "45.0", "head/neck", "unknown", "benign", "0"),
    ("ISIC_0015719", "IP_3075186", "IL_4649854", "female", "45.0", "upper extremity", "unknown", "benign", "0"),
    ("ISIC_0149568", "IP_0962375", "IL_0000001", "female", "55.0", "upper extremity", "melanoma", "malignant", "1"),
    ("ISIC_0149569", "IP_0962375", "IL_0000002", "female", "55.0", "", "nevus", "benign", "0"),
    ("ISIC_0188432", "IP_7127773", "", "", "", "torso", "nevus", "benign", "0"),
    ("ISIC_0188433", "IP_7127774", "IL_0000004", "male", "60.0", "torso", "nevus", "benign", "0"),
    ("ISIC_0207268", "IP_5000001", "IL_0000005", "male", "70.0", "torso", "seborrheic keratosis", "benign", "0"),
    ("ISIC_0207269", "IP_5000001", "IL_0000006", "male", "70.0", "palms/soles", "lentigo NOS", "benign", "0"),
    ("ISIC_0207270", "IP_5000002", "IL_0000007", "male", "70.0", "oral/genital", "lichenoid keratosis", "benign", "0"),
    ("ISIC_0207271", "IP_5000003", "IL_0000008", "male", "70.0", "torso", "solar lentigo", "benign", "0"),
    ("ISIC_0207272", "IP_5000004", "IL_0000009", "male", "30.0", "torso", "cafe-au-lait macule", "benign", "0"),
    (
        "ISIC_0207273",
        "IP_5000005",
        "IL_0000010",
        "male",
        "30.0",
        "torso",
        "atypical melanocytic proliferation",
        "benign",
        "0",
    ),
)
DUPLICATES = (("ISIC_0188432", "ISIC_0188433"),)


def write(root: Path) -> ISIC2020:
    """Two of five patients have several photographs; two photographs of other patients are listed as the same."""
    write_csv(root / "ISIC_2020_Training_GroundTruth_v2.csv", HEADER, ROWS)
    write_csv(root / "ISIC_2020_Training_Duplicates.csv", ("image_name_1", "image_name_2"), DUPLICATES)
    for number, row in enumerate(ROWS):
        write_jpeg(root / "train" / f"{row[0]}.jpg", number)
    return ISIC2020(str(root))
