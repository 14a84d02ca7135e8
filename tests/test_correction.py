"""Wrong answers corrected: the policy's own reasoning stays, the right answer after it is learned."""

from dataclasses import replace

import pytest
import torch

from dermiq.correction import corrections
from dermiq.prompts import parse
from dermiq.rollout import Rollout
from dermiq.schema import Sample

SAMPLES = tuple(
    Sample(f"s{i}", (f"{i}.png",), target, target, f"s{i}") for i, target in enumerate(("melanoma", "wart"))
)
THINK = "<think> colour : brown . </think>"
TEXTS = [
    [f"{THINK} <answer> melanoma </answer>", f"{THINK} <answer> psoriasis </answer>"],
    [f"{THINK} <answer> melanoma </answer>", "no structure"],
]


@pytest.fixture
def rollout():
    answers = [[parse(text) for text in group] for group in TEXTS]
    ids = torch.ones(4, 3, dtype=torch.int64)
    return Rollout(SAMPLES, ids, ids.bool(), torch.zeros(4, 3), answers)


CORRECT = torch.tensor([[True, False], [False, False]])


def test_only_well_formed_wrong_answers_are_corrected(backbone, rollout):
    found = corrections(backbone, rollout, CORRECT)
    assert found.rows.tolist() == [0, 1]
    texts = backbone.decode(found.ids, found.mask)
    assert [parse(text).diagnosis for text in texts] == ["melanoma", "wart"]
    assert [parse(text).think for text in texts] == ["colour : brown ."] * 2


def test_the_answer_is_learned_and_the_reasoning_is_not(backbone, rollout):
    found = corrections(backbone, rollout, CORRECT)
    learned = backbone.decode(found.ids, found.learned)
    assert all("answer" in text and "brown" not in text and "think" not in text for text in learned)
    ends = [int(ids[mask][-1]) for ids, mask in zip(found.ids, found.learned, strict=True)]
    assert set(ends) <= set(backbone.stop_ids)
    assert bool((found.learned <= found.mask).all())


def test_nothing_to_correct(backbone, rollout):
    assert corrections(backbone, rollout, torch.ones(2, 2, dtype=torch.bool)) is None


def test_parts_add_up(backbone, rollout):
    found = corrections(backbone, replace(rollout), CORRECT)
    parts = list(found.parts(tokens=found.ids.shape[1]))
    assert len(parts) == 2 and len(list(found.parts(None))) == 1
    assert torch.equal(torch.cat([part.ids for part in parts]), found.ids)
    assert torch.equal(torch.cat([part.rows for part in parts]), found.rows)
