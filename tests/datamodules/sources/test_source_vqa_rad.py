"""VQA-RAD: images shared by the official parts, repeated questions, the two layouts."""

from __future__ import annotations

import logging

import pytest

from dermiq.datamodules import PromptDataModule
from dermiq.prompts import gold_completion, parse
from dermiq.rewards import diagnosis
from dermiq.schema import DataError
from support.layouts.vqa_rad import FOLDER, write, write_parquet


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def loaded(source):
    source.load()
    return source


def test_questions_about_one_image_are_a_group(tmp_path):
    first, second, third, *_ = loaded(write(tmp_path))
    assert first.group == second.group == third.group == "vqa_rad:synpic54610"
    assert (first.kind, first.question) == ("vqa", "Are regions of the brain infarcted?")
    assert (first.label, first.target, first.synonyms, first.site) == ("Yes", "yes", (), "HEAD")
    assert first.images == (str(tmp_path / FOLDER / "synpic54610.jpg"),)
    assert (third.label, third.target) == ("Diffusion-weighted MRI.", "diffusion-weighted mri")


def test_a_repeated_question_counts_once(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        source = loaded(write(tmp_path))
    assert [sample.id for sample in source] == ["0", "1", "2", "3", "5", "6"]
    assert "1 questions repeat another about the same image" in caplog.text


def test_numbers_and_punctuation_are_answers(tmp_path):
    *_, number, side = loaded(write(tmp_path))
    assert (number.label, number.target) == ("2", "2")
    assert side.target == "the right side/hemithorax; slightly"
    for given, right in ((gold_completion(side), 1), ("<think> </think> <answer> The right side </answer>", 0)):
        assert diagnosis(parse(given), side) == right


def test_the_official_parts(tmp_path):
    assert [sample.id for sample in loaded(write(tmp_path, part="train"))] == ["0", "1", "3", "6"]
    assert [sample.id for sample in loaded(write(tmp_path, part="test"))] == ["2", "4", "5"]


def test_the_official_parts_are_no_clean_split(tmp_path):
    sources = {"train": write(tmp_path, part="train"), "test": write(tmp_path, part="test")}
    with pytest.raises(DataError, match="what is trained on would be tested"):
        PromptDataModule("not opened", sources).setup("test")


def test_bad_rows_are_named(tmp_path):
    source = write(tmp_path)
    path = tmp_path / "VQA_RAD Dataset Public.json"
    path.write_text(path.read_text().replace('"answer": "No"', '"answer": " . "', 1))
    with pytest.raises(DataError, match=r"Public\.json, row 4: the question has no answer"):
        source.load()
    path.write_text(path.read_text().replace('"answer": " . "', '"answer": null', 1))
    with pytest.raises(DataError, match="row 4: 'answer' is missing or blank"):
        write_again = type(source)(str(tmp_path))
        write_again.load()


def test_nameless_images_are_tied_by_their_content(tmp_path):
    infarct, lungs, kind, side = source = loaded(write_parquet(tmp_path))
    assert infarct.group == kind.group and len({sample.group for sample in source}) == 3
    assert infarct.links == kind.links and infarct.links[0].startswith("md5:")
    assert (lungs.question, lungs.target, lungs.kind) == ("are the lungs normal appearing?", "no", "vqa")
    assert (side.id, side.dataset, side.licence) == ("vqa_rad-train+test-4", "vqa_rad", "CC0 1.0")
    assert source.image(side.images[0]).size == (40, 30)
    assert [sample.target for sample in loaded(write_parquet(tmp_path, part="test"))] == [kind.target, side.target]
