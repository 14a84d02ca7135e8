"""PMC-VQA: letters and options, both versions."""

from __future__ import annotations

import pytest

from dermiq.prompts import parse
from dermiq.rewards import diagnosis
from dermiq.schema import DataError
from support.layouts.pmc_vqa import write


def loaded(source):
    source.load()
    return source


def right(answer: str, sample) -> bool:
    return diagnosis(parse(f"<think> </think> <answer> {answer} </answer>"), sample) == 1


def test_the_letter_is_the_answer(tmp_path):
    uptake, *_ = loaded(write(tmp_path))
    assert uptake.question.splitlines() == [
        "What is the uptake pattern in the breast?",
        "A. Diffuse uptake pattern",
        "B. Focal uptake pattern",
        "C. No uptake pattern",
        "D. Cannot determine from the information given",
    ]
    assert (uptake.kind, uptake.target, uptake.label, len(uptake.options)) == ("choice", "B", "B", 4)
    assert all(right(answer, uptake) for answer in ("b", "B. focal uptake pattern", "Focal uptake pattern", "B)"))
    assert not any(right(answer, uptake) for answer in ("A", "uptake", "A or B"))


def test_options_that_are_letters(tmp_path):
    _, panels, _ = loaded(write(tmp_path))
    assert panels.options == ("B", "A", "C", "D") and panels.target == "A"
    assert right("A", panels) and not right("B", panels)


def test_blank_options_are_left_out(tmp_path):
    *_, stain = loaded(write(tmp_path))
    assert stain.options == ("H&E", "Gram", "PAS") and stain.target == "C"
    assert right("PAS", stain) and right("C", stain) and not right("D", stain)


def test_figures_of_one_article_are_a_group(tmp_path):
    uptake, panels, stain = loaded(write(tmp_path))
    assert uptake.group == panels.group == "pmc_vqa:PMC1064097" != stain.group
    assert uptake.images == (str(tmp_path / "images" / "PMC1064097_F1.jpg"),)


def test_the_second_version(tmp_path):
    (sample,) = loaded(write(tmp_path, part="train_2"))
    assert (sample.id, sample.target, sample.options) == ("train_2-1", "B", ("male", "female"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (",PAS,D", ",PAS,E", "line 5: the right answer is 'E' and not A, B, C or D"),
        (",PAS,D", ",PAS,C", "line 5: there is no choice: option C of"),
        ("PMC1079854_F10.jpg", "", "line 5: the column 'Figure_path' is empty"),
    ],
)
def test_bad_rows_are_named(old, new, said, tmp_path):
    source = write(tmp_path)
    path = tmp_path / "train.csv"
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=said):
        source.load()
