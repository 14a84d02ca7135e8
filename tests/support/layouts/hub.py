"""A data set that the `datasets` library has saved: embedded images, named classes, a licence of each image."""

from __future__ import annotations

from pathlib import Path

import datasets

from dermiq.datamodules.sources.general.hub import HubDataset
from support.small_data import jpeg


def write(root: Path) -> HubDataset:
    """Four photographs, two of them the same."""
    contents = [jpeg(0), jpeg(0), jpeg(1), jpeg(2)]
    columns = {
        "image": [{"bytes": content, "path": None} for content in contents],
        "dx": [0, 0, 1, 1],
        "terms": ["CC BY 4.0", "CC0", None, "CC0"],
    }
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "dx": datasets.ClassLabel(names=["melanoma", "nevus"]),
            "terms": datasets.Value("string"),
        }
    )
    table = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict({"train": table.select(range(2)), "test": table.select(range(2, 4))}).save_to_disk(
        root / "saved"
    )
    return HubDataset(
        str(root / "saved"),
        "image",
        "dx",
        split="train+test",
        licence="CC BY-NC 4.0",
        licence_column="terms",
        attribution="somebody",
        dataset="saved",
    )
