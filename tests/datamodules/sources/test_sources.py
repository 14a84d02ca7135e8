"""Sources: what all of them promise, tables, and real lesions where they are at hand."""

from __future__ import annotations

import json
import pickle
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from dermiq.datamodules.sources import HAM10000, TabularSource
from dermiq.datamodules.sources.base import Source, sample_row
from dermiq.datamodules.splits import split_by_group
from dermiq.prompts import gold_completion, parse
from support.small_data import write_csv, write_ham10000, write_jpeg

LABELS = {"m": "Melanoma", "n": "nevus", "w": "Elephantiasis"}


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def ham10000(root: Path) -> Source:
    return HAM10000(str(write_ham10000(root)))


def csv_table(root: Path) -> Source:
    write_jpeg(root / "007.jpg")
    rows = [("007.jpg", "m", "007", "NA"), ("007.jpg", "n", "", "What is it?"), ("007.jpg", "w", "8", "")]
    path = write_csv(root / "table.csv", ("file", "dx", "patient", "q"), rows)
    return TabularSource(str(path), "file", "dx", group_column="patient", question_column="q", labels=LABELS)


def json_table(root: Path) -> Source:
    rows = [
        {"files": ["a.jpg", "sub/b.jpg"], "dx": "melanoma", "id": 12},
        {"files": ["c.jpg"], "dx": "Naevus", "id": 13},
    ]
    for name in ("a.jpg", "sub/b.jpg", "c.jpg"):
        write_jpeg(root / "images" / name)
    path = root / "table.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TabularSource(str(path), "files", "dx", image_root=str(root / "images"), id_column="id")


def parquet_table(root: Path) -> Source:
    write_jpeg(root / "a.jpg")
    table = pa.table({"file": ["a.jpg", "a.jpg"], "dx": [0, 1], "lesion": ["x", None]})
    pyarrow.parquet.write_table(table, root / "table.parquet")
    labels = {"0": "melanoma", "1": "nevus"}
    return TabularSource(str(root / "table.parquet"), "file", "dx", group_column="lesion", labels=labels, licence="CC0")


@pytest.mark.parametrize("build", [ham10000, csv_table, json_table, parquet_table])
def test_what_every_source_promises(build, tmp_path):
    source = build(tmp_path)
    source.load()
    source.load()
    samples = list(source)
    assert len(samples) == len(source) > 1
    assert len({sample.id for sample in samples}) == len(samples)
    for sample, row in zip(samples, source.table(), strict=True):
        assert row == sample_row(sample)
        assert row[:4] == (sample.group, sample.target, len(sample.question), len(sample.images))
        assert row.length == len(sample.question) + len(gold_completion(sample)) + 1000 * len(sample.images)
        assert sample.target == sample.target.lower() and sample.group and not sample.findings_observed
        assert parse(gold_completion(sample)).diagnosis == sample.target
        assert {source.image(reference).mode for reference in sample.images} == {"RGB"}
    assert source.missing() == []
    assert list(pickle.loads(pickle.dumps(source))) == samples


def test_csv_values_stay_text(tmp_path):
    source = csv_table(tmp_path)
    source.load()
    assert [sample.question for sample in source] == ["NA", "What is it?", ""]
    assert [sample.group for sample in source] == ["007", "007.jpg", "8"]
    assert [sample.id for sample in source] == ["table-1", "table-2", "table-3"]
    assert [sample.target for sample in source] == ["melanoma", "melanocytic nevus", "elephantiasis"]
    assert source[0].label == "m" and source[0].synonyms and source[0].findings
    assert source[2].synonyms == () and source[2].findings == {}


def test_json_lines_hold_several_images_and_labels_of_the_ontology(tmp_path):
    source = json_table(tmp_path)
    source.load()
    assert source[0].images == tuple(str(tmp_path / "images" / name) for name in ("a.jpg", "sub/b.jpg"))
    assert [(sample.id, sample.target) for sample in source] == [("12", "melanoma"), ("13", "melanocytic nevus")]


def test_samples_of_one_image_are_a_group(tmp_path):
    source = parquet_table(tmp_path)
    source.load()
    assert [sample.group for sample in source] == ["x", "a.jpg"]
    assert source[1].licence == "CC0"


@pytest.mark.slow
def test_a_table_of_100000_rows_starts_in_seconds(tmp_path):
    rows = [(f"{i}.jpg", "melanoma", f"p{i // 3}") for i in range(100_000)]
    path = write_csv(tmp_path / "large.csv", ("file", "dx", "patient"), rows)
    source = TabularSource(str(path), "file", "dx", group_column="patient")
    start = time.perf_counter()
    source.load()
    table = source.table()
    assert source[99_999].group == table[99_999].group == "p33333"
    assert time.perf_counter() - start < 20  # about 3 s on an idle core


def test_lesions_of_the_real_metadata_stay_on_one_side(data_root):
    source = HAM10000(str(data_root / "ham10000"))
    source.load()
    table = source.table()
    groups, targets = [entry.group for entry in table], [entry.target for entry in table]
    fractions = {"train": 0.8, "val": 0.1, "test": 0.1}
    splits = split_by_group(groups, targets, fractions, 0)
    lesions = [{groups[i] for i in chosen} for chosen in splits.values()]
    assert sum(map(len, lesions)) == len(set(groups)) < len(groups)
    for name, chosen in splits.items():
        for target, count in Counter(targets).items():
            share = sum(targets[i] == target for i in chosen) / count
            assert abs(share - fractions[name]) < 0.03, (name, target, share)
