"""HAM10000: dermoscopic photographs of pigmented skin lesions, in their published layout.

    root/HAM10000_metadata.csv
    root/HAM10000_images_part_1/ISIC_0027419.jpg ...
    root/HAM10000_images_part_2/ISIC_0031630.jpg ...

Source: P. Tschandl, C. Rosendahl, H. Kittler, "The HAM10000 dataset, a large collection of multi-source
dermatoscopic images of common pigmented skin lesions", Scientific Data 5, 180161 (2018); files at
doi:10.7910/DVN/DBW86T. Licence: CC BY-NC 4.0.

The published set has 10,015 images of 7,470 lesions: nv 6,705, mel 1,113, bkl 1,099, bcc 514, akiec 327,
vasc 142, df 115. Several photographs of one lesion share its `lesion_id`, which is the group here. The
set has no patient ids and no official split. `akiec` holds Bowen's disease besides actinic keratosis,
`bkl` solar lentigo and lichen-planus-like keratosis besides seborrhoeic keratosis, and `vasc` several
kinds of vascular lesion: the concept is the coarser one.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from dermiq.atlas import CONDITIONS, typical
from dermiq.datamodules.sources.base import MAX_PIXELS, Source
from dermiq.schema import DataError, Sample

METADATA = "HAM10000_metadata.csv"
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
COLUMNS = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
CONCEPTS = {
    "akiec": "actinic keratosis",
    "bcc": "basal cell carcinoma",
    "bkl": "benign keratosis",
    "df": "dermatofibroma",
    "mel": "melanoma",
    "nv": "melanocytic nevus",
    "vasc": "vascular lesion",
}


class HAM10000(Source):
    """The photographs of HAM10000 with the diagnosis to name.

    The findings of a sample are those typical of its condition, not those of its photograph.

    Args:
        root: the folder that holds the metadata file and the two image folders.
        max_pixels: the largest width * height of a photograph accepted, in pixels.
    """

    def __init__(self, root: str, max_pixels: int = MAX_PIXELS) -> None:
        self.root = Path(root)
        self.max_pixels = max_pixels
        self._rows: list[tuple[str, str, str]] = []
        self._paths: dict[str, str] = {}

    def load(self) -> None:
        """Read the metadata and list the image folders once.

        Raises:
            DataError: if the metadata or both image folders are missing, a column is missing, or a row has
                an unknown label or the id of another row.
        """
        if self._rows:
            return
        paths = self._list_images()
        rows = self._read_metadata()
        self._rows, self._paths = rows, paths

    def __len__(self) -> int:
        """Number of rows of the metadata."""
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """The sample of one row."""
        lesion, image, dx = self._rows[index]
        concept = CONCEPTS[dx]
        return Sample(
            id=image,
            images=(self._paths.get(image, str(self.root / FOLDERS[0] / f"{image}.jpg")),),
            target=concept,
            label=dx,
            group=lesion,
            synonyms=CONDITIONS[concept].synonyms,
            findings=typical(concept),
            licence="CC BY-NC 4.0",
            attribution="HAM10000, Tschandl et al. 2018, doi:10.7910/DVN/DBW86T",
        )

    def missing(self) -> list[int]:
        """Indices of the rows whose photograph is in neither image folder."""
        return [index for index, (_, image, _) in enumerate(self._rows) if image not in self._paths]

    def _list_images(self) -> dict[str, str]:
        folders = [self.root / folder for folder in FOLDERS if (self.root / folder).is_dir()]
        if not folders:
            raise DataError(
                f"{self.root}: there is neither {FOLDERS[0]}/ nor {FOLDERS[1]}/. Give `root` the folder into which "
                "the archives of HAM10000 were unpacked."
            )
        return {
            entry.name.removesuffix(".jpg"): entry.path
            for folder in folders
            for entry in os.scandir(folder)
            if entry.name.endswith(".jpg")
        }

    def _read_metadata(self) -> list[tuple[str, str, str]]:
        path = self.root / METADATA
        try:
            with path.open(encoding="utf-8-sig", newline="") as file:
                reader = csv.DictReader(file)
                lacking = [column for column in COLUMNS if column not in (reader.fieldnames or ())]
                if lacking:
                    raise DataError(
                        f"{path}: the column(s) {', '.join(lacking)} are missing; there are "
                        f"{', '.join(reader.fieldnames or ('none',))}. Take the metadata file of HAM10000 as published."
                    )
                return self._checked(path, list(reader))
        except FileNotFoundError:
            raise DataError(
                f"{path}: the metadata file is missing. Give `root` the folder that holds it and the image folders."
            ) from None
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise DataError(f"{path}: the metadata cannot be read ({error}). Download the file again.") from None

    def _checked(self, path: Path, records: list[dict[str, str]]) -> list[tuple[str, str, str]]:
        seen: set[str] = set()
        for number, record in enumerate(records, start=2):
            if record["dx"] not in CONCEPTS:
                raise DataError(
                    f"{path}, line {number} (image {record['image_id']}): the label {record['dx']!r} is unknown; "
                    f"HAM10000 has {', '.join(CONCEPTS)}. Correct or remove the row."
                )
            if not record["lesion_id"] or not record["image_id"] or record["image_id"] in seen:
                raise DataError(
                    f"{path}, line {number}: the image {record['image_id']!r} of lesion {record['lesion_id']!r} has an "
                    "empty id or stands there twice. Correct or remove the row."
                )
            seen.add(record["image_id"])
        if not records:
            raise DataError(f"{path}: the metadata have no rows. Download the file again.")
        return [(record["lesion_id"], record["image_id"], record["dx"]) for record in records]
