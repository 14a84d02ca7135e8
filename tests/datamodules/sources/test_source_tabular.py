"""Tables of one's own: every kind of question, skin types, labels that lump, and their rows without samples."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from jsonargparse import ArgumentParser

from dermiq.datamodules.sample_table import sample_row
from dermiq.datamodules.sources import Source
from dermiq.datamodules.sources.general.tabular import TabularSource
from dermiq.prompts import gold_completion, parse
from dermiq.rewards import RewardMixture, RewardTerm, diagnosis, unhedged, well_formed
from dermiq.schema import SkinType
from support.layouts.tabular import write
from support.small_data import write_csv

FULL = RewardMixture({"diagnosis": RewardTerm(diagnosis)}, {"format": well_formed, "hedging": unhedged})


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def loaded(source: TabularSource) -> TabularSource:
    """Loaded, and its table and its gold completions checked."""
    source.load()
    assert list(source.table()) == [sample_row(sample) for sample in source]
    for sample in source:
        scores = FULL([[parse(gold_completion(sample))]], [sample])
        assert scores.total.item() == FULL.full, sample
    return source


def lines(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_clinics_own_table(tmp_path):
    keratosis, melanoma, nevus, lumped = loaded(write(tmp_path))
    assert keratosis.group == melanoma.group == "clinic:007" and lumped.group == "clinic:sub/3.jpg"
    assert [s.skin_type for s in (keratosis, melanoma, nevus)] == [
        SkinType("fitzpatrick", "II", "self-reported"),
        None,
        None,
    ]
    assert (melanoma.site, melanoma.licence, melanoma.dataset) == ("left,\nupper arm", "our own", "clinic")
    assert keratosis.findings and keratosis.concepts == ("actinic_keratosis",)
    assert lumped.concepts == ("angiokeratoma", "cherry_angioma") and lumped.target == "angiokeratoma"
    assert "cherry angioma" in lumped.synonyms


def test_free_answers(tmp_path):
    answers = ("Yes", "the left lung, lower right.", "T2-weighted", "3", "-", "None", "x/y or z?")
    rows = [{"image": "a.jpg", "q": f"Question {i}?", "a": answer} for i, answer in enumerate(answers)]
    source = TabularSource(lines(tmp_path / "t.jsonl", *rows), "image", "a", kind="vqa", question_column="q")
    samples = list(loaded(source))
    assert [sample.label for sample in samples] == list(answers)
    assert [sample.target for sample in samples[:4]] == ["yes", "the left lung, lower right", "t2-weighted", "3"]
    assert {sample.kind for sample in samples} == {"vqa"} and samples[2].question == "Question 2?"
    assert not any(sample.synonyms or sample.findings for sample in samples)


def test_choices_in_a_list_or_in_columns(tmp_path):
    rows = [
        {"image": "a.jpg", "q": "Which?", "options": ["cyst", "wart", "mole"], "right": right}
        for right in ("B", "wart", "1", "b")
    ]
    path = lines(tmp_path / "t.jsonl", *rows)
    source = TabularSource(path, "image", "right", kind="choice", question_column="q", options_column="options")
    for sample in loaded(source):
        assert (sample.target, sample.options) == ("B", ("cyst", "wart", "mole"))
        assert sample.question == "Which?\nA. cyst\nB. wart\nC. mole"
    table = write_csv(tmp_path / "t.csv", ("image", "a", "b", "c", "right"), [("a.jpg", "cyst", "", "mole", "C")])
    (sample,) = loaded(TabularSource(str(table), "image", "right", kind="choice", options_column=["a", "b", "c"]))
    assert (sample.target, sample.options, sample.question) == (
        "B", ("cyst", "mole"), "What is the diagnosis?\nA. cyst\nB. mole",
    )  # fmt: skip


def test_options_of_numbers(tmp_path):
    table = pa.table({"image": ["a.jpg"] * 2, "options": [[10, 20], [1, 2, 0]], "right": [1, 0]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    source = TabularSource(str(tmp_path / "t.parquet"), "image", "right", kind="choice", options_column="options")
    first, second = loaded(source)
    assert first.options[1] == "20" and first.target == "B"
    assert second.options[2] == "0" and second.target == "C"  # the text of an option goes before its number


@pytest.mark.parametrize(
    ("written", "meant"),
    [("3", "III"), ("3.0", "III"), ("iv", "IV"), ("12", "I-II"), ("V-VI", "V-VI"), ("-1", None), ("unknown", None)],
)
def test_skin_types_as_they_are_written(written, meant, tmp_path):
    path = write_csv(tmp_path / "t.csv", ("image", "dx", "skin"), [("a.jpg", "nevus", written)])
    (sample,) = loaded(TabularSource(str(path), "image", "dx", skin_type_column="skin", skin_type_how="rated"))
    assert sample.skin_type == (SkinType("fitzpatrick", meant, "rated") if meant else None)


def test_skin_types_of_numbers_with_gaps(tmp_path):
    table = pa.table({"image": ["a.jpg", "b.jpg"], "dx": ["nevus"] * 2, "skin": [5.0, None]})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    source = loaded(TabularSource(str(tmp_path / "t.parquet"), "image", "dx", skin_type_column="skin"))
    assert source.table().arrow["skin_type"].to_pylist() == ["V", ""]


def test_answers_beyond_the_ontology(tmp_path):
    path = write_csv(tmp_path / "t.csv", ("image", "dx"), [("a.jpg", "RARE"), ("b.jpg", "BCC")])
    source = TabularSource(str(path), "image", "dx", labels={"RARE": "A very rare_disease", "BCC": "rodent ulcer"})
    rare, carcinoma = loaded(source)
    assert (rare.target, rare.concepts, rare.findings) == ("very rare disease", (), {})
    assert carcinoma.target == "basal cell carcinoma" and "rodent ulcer" in carcinoma.synonyms


def test_missing_images_are_reported(tmp_path):
    source = loaded(write(tmp_path))
    assert source.missing() == []
    (tmp_path / "photographs" / "1.jpg").unlink()
    assert source.missing() == [0, 1]


@pytest.mark.parametrize("kind", ["TabularSource", "general.hub.HubDataset"])
def test_every_column_can_be_named_in_yaml(kind):
    names = ("question", "group", "id", "skin_type", "site", "licence", "attribution")
    columns = {f"{name}_column": name for name in names}
    parser = ArgumentParser()
    parser.add_argument("--source", type=Source)
    given = {"path": "t.csv", "image_column": "i", "label_column": "l", "dataset": "d", "labels": {"a": ["b", "c"]}}
    config = {"class_path": f"dermiq.datamodules.sources.{kind}", "init_args": given | columns}
    source = parser.instantiate_classes(parser.parse_object({"source": config})).source
    assert all(getattr(source, f"{name}_column") == name for name in names) and source.labels == {"a": ["b", "c"]}
