"""HAM10000: lesions, several conditions behind a label, and the real files where they are at hand."""

from __future__ import annotations

from collections import Counter

import pytest

from dermiq.datamodules.sources.ham10000 import HAM10000
from dermiq.schema import DataError
from support.small_data import write_ham10000


def test_photographs_of_a_lesion_are_a_group(tmp_path):
    source = HAM10000(str(write_ham10000(tmp_path)))
    source.load()
    sample = source[8]  # the first photograph of the fifth lesion
    assert (sample.id, sample.label, sample.target) == ("ISIC_0000008", "mel", "melanoma")
    assert sample.group == source[9].group == "ham10000:HAM_0000004" != source[10].group
    assert sample.links == ("isic:ISIC_0000008", "isic-lesion:HAM_0000004")
    assert sample.images == (str(tmp_path / "HAM10000_images_part_1" / "ISIC_0000008.jpg"),)
    assert sample.images != source[9].images
    assert "malignant melanoma" in sample.synonyms and sample.concepts == ("melanoma",)
    assert sample.site == "scalp" and "NC" in sample.licence and "Tschandl" in sample.attribution


def test_every_condition_behind_a_label_counts(tmp_path):
    source = HAM10000(str(write_ham10000(tmp_path)))
    source.load()
    by_label = {sample.label: sample for sample in source}
    assert by_label["akiec"].concepts == ("actinic_keratosis", "bowen_disease")
    assert {"seborrheic keratosis", "solar lentigo"} <= set(by_label["bkl"].synonyms)
    assert {"cherry angioma", "pyogenic granuloma"} <= set(by_label["vasc"].synonyms)


def test_the_dataset_column_need_not_be_there(tmp_path):
    root = write_ham10000(tmp_path)
    path = root / "HAM10000_metadata.csv"
    path.write_text("".join(line.rsplit(",", 1)[0] + "\n" for line in path.read_text().splitlines()))
    source = HAM10000(str(root))
    source.load()
    assert len(source) == 42


def test_rows_of_re_uploads_are_refused(tmp_path):
    path = write_ham10000(tmp_path) / "HAM10000_metadata.csv"
    path.write_text(path.read_text() + "HAM_9000000,ISIC_9000000,healthy,user_added,30.0,male,hand,\n")
    with pytest.raises(DataError, match="line 44: the label 'healthy' is unknown to HAM10000"):
        HAM10000(str(tmp_path)).load()


def test_the_real_photographs(data_root):
    source = HAM10000(str(data_root / "ham10000"))
    source.load()
    counts = Counter(sample.label for sample in source)
    assert counts == {"nv": 6028, "mel": 1003, "bkl": 992, "bcc": 461, "akiec": 295, "vasc": 129, "df": 104}
    assert source.missing() == []
    assert source.image(source[0].images[0]).size == (200, 150)


def test_the_whole_real_metadata_without_photographs(data_root):
    source = HAM10000(str(data_root / "ham10000_metadata_full"))
    source.load()
    assert Counter(sample.label for sample in source) == {
        label: meaning.count for label, meaning in source.card.labels.items()
    }
    assert len(source) == source.card.images and len({sample.group for sample in source}) == 7470
    assert source.missing() == list(range(len(source)))
