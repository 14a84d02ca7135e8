"""SkinCAP in small: captions that end with the diagnosis, skin types of two data sets as 3.0 and 56, flagged rows."""

from __future__ import annotations

from pathlib import Path

from dermiq.datamodules.sources.skincap import FLAG, SkinCAP
from support.layouts.fitzpatrick17k import hash_of
from support.layouts.skincon import CONCEPTS
from support.small_data import write_csv, write_jpeg

HEADER = (
    "id,skincap_file_path,ori_file_path,disease,caption_zh,caption_zh_polish,caption_zh_polish_en,remark,source,"
    "skin_tone,malignant,fitzpatrick_scale,fitzpatrick_centaur,nine_partition_label,three_partition_label"
).split(",")
# original file, disease, caption, source, skin tone, Fitzpatrick scale, flagged
IMAGES = (
    (
        f"{hash_of(0)}.png",
        "psoriasis",
        "Well-defined red plaques with silvery-white scale on both knees, which is consistent with psoriasis. A skin "
        "biopsy is recommended.",
        ("fitzpatrick17k", "", "3.0"),
        0,
    ),
    (
        f"{hash_of(1)}.png",
        "erythema annulare centrifigum",
        "The trunk shows ring-shaped pink plaques with a trailing scale. Erythema annulare centrifugum.",
        ("fitzpatrick17k", "", "-1.0"),
        0,
    ),
    (f"{hash_of(2)}.png", "melanoma", "Melanoma.", ("fitzpatrick17k", "", "5.0"), 0),
    (
        "000004.png",
        "seborrheic-keratosis-irritated",
        "A brown, warty plaque with a greasy surface on the back: possible seborrheic keratosis, needs follow-up.",
        ("ddi", "12.0", ""),
        0,
    ),
    ("000001.png", "melanoma-in-situ", "A black patch on the sole with an irregular edge", ("ddi", "56.0", ""), 0),
    (f"{hash_of(5)}.png", "tick bite", "The picture is blurred.", ("fitzpatrick17k", "", "6.0"), 1),
)


def write(root: Path) -> SkinCAP:
    """Six rows, one of them flagged."""
    rows = []
    for number, (original, disease, caption, (source, tone, scale), flagged) in enumerate(IMAGES, start=1):
        told = (number, f"{number}.png", original, disease, "", "", caption, "", source, tone, "", scale, "", "", "")
        rows.append((*told, *[0] * len(CONCEPTS), flagged))
        write_jpeg(root / "skincap" / f"{number}.png", number)
    write_csv(root / "skincap_v240623.csv", (*HEADER, *CONCEPTS, FLAG), rows)
    return SkinCAP(str(root))
