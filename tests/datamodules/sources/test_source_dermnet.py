"""Class folders: classes, series, parts."""

from __future__ import annotations

import pytest

from dermiq.datamodules.sources.dermnet import DermNet
from dermiq.schema import DataError
from support.layouts import dermnet


@pytest.fixture
def root(tmp_path):
    dermnet.write(tmp_path)
    return tmp_path


def loaded(root, **options) -> DermNet:
    source = DermNet(str(root), **options)
    source.load()
    return source


def test_photographs_of_a_series_stay_together(root):
    groups = {sample.id.rpartition("/")[2]: sample.group for sample in loaded(root)}
    series = {groups[name] for name in ("acne-cystic-12", "acne-cystic-2", "acne-cystic-3")}
    assert series == {"dermnet:acne-cystic"} and len(set(groups.values())) == 6
    assert groups["cherry-angioma-3 (1)"] == "dermnet:cherry-angioma" and groups["07Acne081101"] == "dermnet:07acne"


def test_other_files_are_no_photographs(root):
    (root / "train" / "Vascular Tumors" / "Thumbs.db").write_bytes(b"")
    (root / "train" / "readme.txt").write_text("photographs")
    assert len(loaded(root)) == 8


def test_parts(root):
    train, test, both = (loaded(root, part=part) for part in ("train", "test", None))
    assert [len(train), len(test)] == [6, 2]
    assert [*train, *test] == list(both)


def test_classes_lump_conditions(root):
    source = loaded(root)
    assert len(source.card.labels) == 23 and sum(meaning.count for meaning in source.card.labels.values()) == 19_559
    acne, hair = source[0], next(sample for sample in source if sample.label.startswith("Hair"))
    assert acne.target == "acne vulgaris" and "rosacea" in acne.synonyms and len(acne.concepts) > 2
    assert (hair.target, hair.synonyms) == ("alopecia", ())


def test_another_class_is_refused(root):
    (root / "train" / "Vascular Tumors").rename(root / "train" / "Vascular tumours")
    with pytest.raises(
        DataError, match=r"Vascular tumours: the label 'Vascular tumours' is unknown.*'Vascular Tumors'"
    ):
        loaded(root)


def test_a_part_that_is_not_there_is_missed(root):
    (root / "test").rename(root / "Test")
    with pytest.raises(DataError, match="there is no folder test/"):
        loaded(root)
    assert len(loaded(root, part="train")) == 6
