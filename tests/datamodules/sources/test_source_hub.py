"""Data sets of the `datasets` library: saved, as files, with images in every form."""

from __future__ import annotations

import datasets
import pyarrow as pa
import pyarrow.parquet
import pytest

from dermiq.datamodules.sample_table import sample_row
from dermiq.datamodules.sources.general.hub import HubDataset
from dermiq.datamodules.sources.general.tabular import TabularSource
from dermiq.schema import DataError
from support.layouts.hub import write
from support.small_data import jpeg, write_jpeg


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def loaded(source):
    source.load()
    return source


def test_named_classes_and_licences_of_single_images(tmp_path):
    source = loaded(write(tmp_path))
    assert [sample.target for sample in source] == ["melanoma", "melanoma", "melanocytic nevus", "melanocytic nevus"]
    assert [sample.label for sample in source] == ["melanoma", "melanoma", "nevus", "nevus"]
    assert [sample.licence for sample in source] == ["CC BY 4.0", "CC0", "CC BY-NC 4.0", "CC0"]
    assert [sample.id for sample in source] == [f"saved-train+test-{number}" for number in (1, 2, 3, 4)]
    assert source[0].group == source[1].group and len({sample.group for sample in source}) == 3


def test_one_saved_split_is_read_as_it_stands(tmp_path):
    write(tmp_path)
    source = loaded(HubDataset(str(tmp_path / "saved" / "test"), "image", "dx"))
    assert [sample.label for sample in source] == ["nevus", "nevus"]


def test_what_is_not_there_is_said(tmp_path):
    write(tmp_path)
    with pytest.raises(DataError, match=r"nowhere: there is no such directory\. Correct `path`"):
        HubDataset(str(tmp_path / "nowhere"), "image", "dx").load()
    with pytest.raises(DataError, match=r"saved: the split 'val' of the data set cannot be read \('val'\)"):
        HubDataset(str(tmp_path / "saved"), "image", "dx", split="val").load()
    with pytest.raises(DataError, match=r"the column\(s\) diagnosis are missing; there are image, dx, terms"):
        HubDataset(str(tmp_path / "saved"), "image", "diagnosis").load()


IMAGES = {
    "content": (pa.array([jpeg(0), jpeg(1)]), False),
    "several contents": (pa.array([[jpeg(0), jpeg(2)], [jpeg(1)]]), False),
    "content or path": (
        pa.array([{"bytes": jpeg(0), "path": "x.jpg"}, {"bytes": None, "path": "a.jpg"}]),
        True,
    ),
    "path": (pa.array(["a.jpg", "b.jpg"]), True),
    "several paths": (pa.array([["a.jpg", "b.jpg"], ["b.jpg"]]), True),
}


@pytest.mark.parametrize(("images", "on_disk"), IMAGES.values(), ids=IMAGES.keys())
def test_images_in_every_form(images, on_disk, tmp_path):
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        write_jpeg(tmp_path / name, seed)
    pyarrow.parquet.write_table(pa.table({"image": images, "dx": ["melanoma", "nevus"]}), tmp_path / "t.parquet")
    source = loaded(TabularSource(str(tmp_path / "t.parquet"), "image", "dx"))
    assert list(source.table()) == [sample_row(sample) for sample in source]
    assert [source.image(reference).size for sample in source for reference in sample.images] == [(40, 30)] * (
        len(pa.compute.list_flatten(images)) if pa.types.is_list(images.type) else 2
    )
    assert source.missing() == []
    (tmp_path / "a.jpg").unlink()
    absent = [i for i, sample in enumerate(source) if str(tmp_path / "a.jpg") in sample.images]
    assert source.missing() == absent and bool(absent) == on_disk


WITHOUT = (
    [jpeg(0), None],
    [[jpeg(0)], []],
    [["a.jpg"], [None]],
    [["a.jpg"], None],
    [{"bytes": None, "path": "a.jpg"}, {"bytes": b"", "path": ""}],
)


@pytest.mark.parametrize("images", WITHOUT)
def test_a_row_without_an_image_is_named(images, tmp_path):
    pyarrow.parquet.write_table(pa.table({"image": images, "dx": ["melanoma", "nevus"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"t\.parquet, row 2: the column 'image' names no image"):
        TabularSource(str(tmp_path / "t.parquet"), "image", "dx").load()


def test_a_broken_embedded_image_is_named(tmp_path):
    table = datasets.Dataset.from_dict({"image": [b"no image"], "dx": ["melanoma"]})
    table.to_parquet(tmp_path / "t.parquet")
    source = loaded(TabularSource(str(tmp_path / "t.parquet"), "image", "dx"))
    with pytest.raises(DataError, match=r"t.parquet, row 1, image 1: the image cannot be read"):
        source.image(source[0].images[0])
