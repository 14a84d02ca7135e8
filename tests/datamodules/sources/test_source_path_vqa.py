"""PathVQA: embedded images, the official parts."""

from __future__ import annotations

import pytest

from dermiq.schema import DataError
from support.layouts.path_vqa import write


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_parts_and_groups(tmp_path):
    source = write(tmp_path)
    source.load()
    samples = list(source)
    assert len(samples) == 6 and len({sample.group for sample in samples}) == 4
    assert samples[0].group == samples[1].group == f"path_vqa:{samples[0].links[0]}"
    assert (samples[3].label, samples[3].target) == ("the spleen, with 'fibrosis'", "the spleen, with 'fibrosis'")
    assert source.missing() == []
    test = write(tmp_path, part="test")
    test.load()
    assert [sample.target for sample in test] == ["3", "no"]
    assert {sample.group for sample in test} == {sample.group for sample in samples[4:]}


def test_a_part_that_is_not_there(tmp_path):
    source = write(tmp_path)
    for path in (tmp_path / "data").glob("validation*"):
        path.unlink()
    with pytest.raises(DataError, match=r"the split 'train\+validation\+test' of the data set cannot be read"):
        source.load()
