"""Small data sets in their real layouts, with synthetic JPEG files."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

from dermiq.schema import DataError

HEADER = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization", "dataset")
FOLDERS = ("HAM10000_images_part_1", "HAM10000_images_part_2")
DIAGNOSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")


def write_jpeg(path: Path, seed: int = 0, size: tuple[int, int] = (40, 30)) -> None:
    """A small photograph of noise on skin."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(120, 220, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, quality=90)


def jpeg(seed: int = 0, size: tuple[int, int] = (40, 30)) -> bytes:
    """The content of such a file."""
    content = BytesIO()
    noise = np.random.default_rng(seed).integers(120, 220, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, "JPEG", quality=90)
    return content.getvalue()


def write_questions(path: Path, rows: Iterable[tuple[int, str, str]]) -> None:
    """A Parquet file as the Hugging Face Hub has it, of (seed of the image, question, answer)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seeds, questions, answers = zip(*rows, strict=True)
    columns = {
        "image": [{"bytes": jpeg(seed), "path": None} for seed in seeds],
        "question": questions,
        "answer": answers,
    }
    features = {"image": datasets.Image(), "question": datasets.Value("string"), "answer": datasets.Value("string")}
    datasets.Dataset.from_dict(columns, datasets.Features(features)).to_parquet(path)


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """A CSV file with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_ham10000(root: Path, lesions_per_diagnosis: int = 3, images_per_lesion: int = 2) -> Path:
    """HAM10000's layout: metadata and two image folders; every lesion has its photographs in both."""
    rows = []
    for lesion in range(len(DIAGNOSES) * lesions_per_diagnosis):
        for view in range(images_per_lesion):
            number = lesion * images_per_lesion + view
            dx = DIAGNOSES[lesion % len(DIAGNOSES)]
            rows.append(
                (f"HAM_{lesion:07d}", f"ISIC_{number:07d}", dx, "histo", "80.0", "male", "scalp", "vidir_modern")
            )
            write_jpeg(root / FOLDERS[view % 2] / f"ISIC_{number:07d}.jpg", number)
    write_csv(root / "HAM10000_metadata.csv", HEADER, rows)
    return root


def refusal(action: Callable[..., object], *arguments: object) -> str:
    """What a `DataError` says."""
    with pytest.raises(DataError) as caught:
        action(*arguments)
    return str(caught.value)
