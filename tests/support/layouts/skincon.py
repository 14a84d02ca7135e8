"""SkinCon in small, on Fitzpatrick17k: spaces in the header, a flagged photograph, one that the base leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dermiq.datamodules.sources.skincon import FLAG, SkinCon
from support.layouts import fitzpatrick17k
from support.small_data import write_csv

CONCEPTS = (
    "Vesicle,Papule,Macule,Plaque,Abscess,Pustule,Bulla,Patch,Nodule,Ulcer,Crust,Erosion,Excoriation,Atrophy,Exudate,"
    "Purpura/Petechiae,Fissure,Induration,Xerosis,Telangiectasia,Scale,Scar,Friable,Sclerosis,Pedunculated,"
    "Exophytic/Fungating,Warty/Papillomatous,Dome-shaped,Flat topped,Brown(Hyperpigmentation),Translucent,"
    "White(Hypopigmentation),Purple,Yellow,Black,Erythema,Comedo,Lichenification,Blue,Umbilicated,Poikiloderma,Salmon,"
    "Wheal,Acuminate,Burrow,Gray,Pigmented,Cyst"
).split(",")
SEEN: tuple[tuple[str, ...], ...] = (
    ("Plaque", "Scale", "Erythema"),
    ("Papule", "Patch", "Erythema", "Purple"),
    ("Black", "Nodule"),
    ("Macule",),
    ("Pustule", "Ulcer"),
    (FLAG,),
    ("Telangiectasia", "Scar"),
)


def write_annotations(path: Path, images: Sequence[str], seen: Sequence[tuple[str, ...]] = SEEN) -> Path:
    """SkinCon's table."""
    columns = (*CONCEPTS, FLAG)
    rows = [
        (number, image, *(int(column in there) for column in columns))
        for number, (image, there) in enumerate(zip(images, seen, strict=True))
    ]
    return write_csv(path, ("", "ImageID", *(f"{column} " for column in columns)), rows)


def write(root: Path) -> SkinCon:
    """Seven annotated photographs, of which five can be used."""
    base = fitzpatrick17k.write(root / "fitzpatrick17k")
    images = [f"{fitzpatrick17k.hash_of(number)}.jpg" for number in range(len(SEEN))]
    return SkinCon(str(write_annotations(root / "annotations_fitzpatrick17k.csv", images)), base)
