"""DermNet-style class folders in small: series in both parts, names with dates, an empty folder."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.dermnet import DermNet
from support.small_data import write_jpeg

IMAGES = (
    "train/Acne and Rosacea Photos/acne-cystic-12.jpg",
    "train/Acne and Rosacea Photos/acne-cystic-2.jpg",
    "train/Acne and Rosacea Photos/07Acne081101.jpg",
    "train/Hair Loss Photos Alopecia and other Hair Diseases/alopecia-areata-5.JPG",
    "train/Melanoma Skin Cancer Nevi and Moles/malignant-melanoma-16.jpg",
    "train/Vascular Tumors/cherry-angioma-3 (1).jpg",
    "test/Acne and Rosacea Photos/acne-cystic-3.jpg",
    "test/Urticaria Hives/hives-Urticaria-Acute-1.jpg",
)


def write(root: Path) -> DermNet:
    """Eight photographs in five classes."""
    for number, file in enumerate(IMAGES):
        write_jpeg(root / file, number)
    (root / "train" / "Urticaria Hives").mkdir()
    return DermNet(str(root))
