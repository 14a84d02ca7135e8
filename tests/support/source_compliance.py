"""The suite that every source of data has to pass: tests of what the fixture `fresh` makes, to be imported."""

from __future__ import annotations

import pickle
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from dermiq.datamodules.sample_table import sample_row
from dermiq.datamodules.sources.base import Source
from dermiq.datamodules.sources.reading.photographs import Photographs
from dermiq.prompts import gold_completion, normalise, parse, to_messages
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis, unhedged, well_formed
from dermiq.schema import DataError, Sample

IMAGES = (".jpg", ".jpeg", ".png")


FULL = RewardMixture({"diagnosis": RewardTerm(diagnosis)}, {"format": well_formed, "hedging": unhedged})


@pytest.fixture
def source(fresh) -> Source:
    fresh.load()
    return fresh


def loaded(source: Source) -> Source:
    source.load()
    return source


def image_files(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.suffix.lower() in IMAGES]


def said(sample: Sample) -> str:
    """All that the model gets to read of a sample."""
    turns = to_messages(sample)
    return "\n".join(part["text"] for turn in turns for part in turn["content"] if part["type"] == "text")


def test_constructing_reads_nothing(fresh, tmp_path):
    (tmp_path / "data").rename(tmp_path / "away")
    with pytest.raises(DataError):
        fresh.load()
    (tmp_path / "away").rename(tmp_path / "data")
    assert len(loaded(fresh)) > 1


def test_loading_opens_no_image_and_items_open_no_file(fresh, tmp_path):
    expected = list(loaded(pickle.loads(pickle.dumps(fresh))))
    for path in image_files(tmp_path / "data"):
        path.write_bytes(b"no image")
    fresh.load()
    (tmp_path / "data").rename(tmp_path / "away")
    fresh.load()
    assert list(fresh) == expected
    assert list(fresh.table()) == [sample_row(sample) for sample in expected]


def test_two_loads_agree_and_ids_are_unique(fresh):
    again = loaded(pickle.loads(pickle.dumps(fresh)))
    samples = list(loaded(fresh))
    assert samples == list(again) == list(pickle.loads(pickle.dumps(fresh)))
    assert len({sample.id for sample in samples}) == len(samples) == len(fresh) > 1


def test_what_belongs_together_is_tied(source):
    seen: dict[str, Sample] = {}
    for sample in source:
        assert sample.group and all(sample.links)
        if isinstance(source, Photographs):
            assert sample.group.startswith(f"{source.card.name}:") and not sample.group.endswith(":")
        for reference in sample.images:
            other = seen.setdefault(reference, sample)
            assert other.group == sample.group or set(other.links) & set(sample.links)


def test_samples_say_what_they_are_and_on_what_terms(source):
    for sample in source:
        assert sample.images and sample.licence and sample.attribution and sample.dataset
        assert sample.target == sample.target.lower() or sample.kind == "choice"
        if sample.skin_type is not None:
            assert all((sample.skin_type.scale, sample.skin_type.value, sample.skin_type.how))
        if sample.differential:
            assert sum(sample.differential.values()) == pytest.approx(1)


def test_headers_name_source_licence_and_citation(source):
    header = sys.modules[type(source).__module__].__doc__ or ""
    if isinstance(source, Photographs):
        assert all(word in header for word in ("Source", "icence", "Citation")), header


def test_labels_are_those_of_the_card_and_no_others(source, monkeypatch):
    if not isinstance(source, Photographs) or not source.card.labels:
        pytest.skip("a data set of questions has no labels")
    assert {sample.label for sample in source} <= set(source.card.labels)
    for sample in source:
        if sample.asks_diagnosis:
            meaning = source.card.labels[sample.label]
            assert (sample.target, sample.concepts) == (meaning.target, meaning.concepts)
    record = replace(next(iter(source.records())), label="no such label")
    monkeypatch.setattr(source, "records", lambda: [record])
    source._records = []
    with pytest.raises(DataError, match=re.escape(record.where)) as caught:
        source.load()
    assert "'no such label'" in str(caught.value)


def test_the_gold_completion_earns_the_full_reward(source):
    for sample in source:
        if sample.structured:
            scores = FULL([[parse(gold_completion(sample))]], [sample])
            assert scores.total.item() == FULL.full and scores.correct.item(), sample.id
        else:
            assert gold_completion(sample).strip()


def test_the_model_is_told_nothing_that_gives_the_answer_away(source, tmp_path):
    for sample in source:
        text = said(sample)
        names = {
            part for reference in sample.images for part in (reference, Path(reference).name, Path(reference).stem)
        }
        names |= {sample.id, sample.group, sample.group.partition(":")[2]}
        names |= {link.partition(":")[2] for link in sample.links}
        assert not [name for name in names if len(name) > 3 and name in text]
        assert str(tmp_path) not in text and "://" not in text
        if sample.asks_diagnosis:
            assert normalise(sample.target) not in normalise(text)


def test_images_open_as_rgb(source):
    missing = set(source.missing())
    assert len(missing) < len(source)
    for index, sample in enumerate(source):
        if index not in missing:
            assert {source.image(reference).mode for reference in sample.images} == {"RGB"}


def test_missing_images_are_reported_and_not_dropped(fresh, tmp_path):
    if len(image_files(tmp_path)) == sum(path.is_file() for path in tmp_path.rglob("*")):
        pytest.skip("without metadata there is nothing that names a missing image")
    whole = loaded(pickle.loads(pickle.dumps(fresh)))
    before = set(whole.missing())
    for index in before:
        assert not all(Path(reference).is_file() for reference in whole[index].images)
    present = [sample for index, sample in enumerate(whole) if index not in before]
    lost = Path(present[-1].images[0])
    if not lost.is_file():
        pytest.skip("its images stand in a table")
    lost.unlink()
    fresh.load()
    assert [sample.id for sample in fresh] == [sample.id for sample in whole]
    without = {index for index, sample in enumerate(whole) if str(lost) in sample.images}
    assert set(fresh.missing()) == before | without
    for index in without:
        assert lost.stem.lower() in " ".join(fresh[index].images).lower()
