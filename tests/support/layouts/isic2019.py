"""ISIC 2019 in small: one-hot truth, blank lesions, downsampled images, an undiagnosed one in the test part."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.isic2019 import ISIC2019, LABELS
from support.small_data import write_csv, write_jpeg

METADATA = ("image", "age_approx", "anatom_site_general", "lesion_id", "sex")
TRAIN = (
    ("ISIC_0000000", "NV", ("55.0", "anterior torso", "", "female")),
    ("ISIC_0000004_downsampled", "MEL", ("80.0", "posterior torso", "MSK4_0011169", "male")),
    ("ISIC_0024306", "NV", ("45.0", "", "HAM_0000550", "male")),
    ("ISIC_0024307", "NV", ("50.0", "lower extremity", "HAM_0003577", "")),
    ("ISIC_0024308", "BKL", ("", "head/neck", "HAM_0003577", "female")),
    ("ISIC_0053453", "SCC", ("60.0", "upper extremity", "BCN_0000001", "female")),
    ("ISIC_0053459", "BCC", ("75.0", "palms/soles", "BCN_0000002", "male")),
    ("ISIC_0053463", "AK", ("70.0", "oral/genital", "BCN_0000003", "male")),
    ("ISIC_0053467", "DF", ("35.0", "lateral torso", "BCN_0000004", "female")),
    ("ISIC_0053470", "VASC", ("40.0", "anterior torso", "BCN_0000005", "female")),
)
TEST = (("ISIC_0034321", "UNK"), ("ISIC_0034322", "MEL"), ("ISIC_0034323", "NV"))


def write(root: Path) -> ISIC2019:
    """Both parts; the source of the training part."""
    truth = [(image, *_one_hot(label)) for image, label, _ in TRAIN]
    write_csv(root / "ISIC_2019_Training_GroundTruth.csv", ("image", *LABELS), truth)
    metadata = [(image, *said) for image, _, said in reversed(TRAIN)]
    write_csv(root / "ISIC_2019_Training_Metadata.csv", METADATA, metadata)
    for number, (image, _, _) in enumerate(TRAIN):
        write_jpeg(root / "ISIC_2019_Training_Input" / f"{image}.jpg", number)
    weighted = ("image", *LABELS, "score_weight", "validation_weight")
    rows = [(image, *_one_hot(label), "1.0", "0.0") for image, label in TEST]
    write_csv(root / "ISIC_2019_Test_GroundTruth.csv", weighted, rows)
    rows = [(image, "65.0", "anterior torso", "male") for image, _ in TEST]
    write_csv(root / "ISIC_2019_Test_Metadata.csv", ("image", "age_approx", "anatom_site_general", "sex"), rows)
    for number, (image, _) in enumerate(TEST):
        write_jpeg(root / "ISIC_2019_Test_Input" / f"{image}.jpg", 100 + number)
    return ISIC2019(str(root))


def _one_hot(label: str) -> list[str]:
    return ["1.0" if name == label else "0.0" for name in LABELS]
