"""SLAKE: languages, the official parts, both names of the validation file."""

from __future__ import annotations

import logging

from support.layouts.slake import write


def loaded(source):
    source.load()
    return source


def test_one_language_at_a_time(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert [sample.id for sample in loaded(write(tmp_path))] == ["train-0", "train-2", "validate-3", "test-4"]
    assert "train.json: 1 questions are in another language than en and are left out." in caplog.text
    chinese = loaded(write(tmp_path, language="zh"))
    assert [sample.target for sample in chinese] == ["核磁共振", "有"]


def test_questions_about_one_image_are_a_group(tmp_path):
    first, second, *_, last = loaded(write(tmp_path))
    assert first.group == second.group == "slake:xmlab1" != last.group
    assert last.images == (str(tmp_path / "imgs" / "xmlab102" / "source.jpg"),)
    assert (last.target, last.label, last.site) == ("left lung, lower right", "Left Lung, Lower Right", "Lung")


def test_the_official_parts_under_either_name(tmp_path):
    source = write(tmp_path, part="validate")
    (tmp_path / "validate.json").rename(tmp_path / "validation.json")
    (sample,) = loaded(source)
    assert sample.target == "lung, spinal cord"
