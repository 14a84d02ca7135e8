"""The metrics of an evaluation: from rows to numbers, by kind of question, and of several processes."""

from dataclasses import replace

import pytest
import torch
from sklearn.metrics import recall_score

from dermiq.metrics import EvaluationMetrics, Judge, named_classes, summarise
from dermiq.prompts import parse
from dermiq.schema import SkinType
from support.diagnoses import JUDGE, LUMP, MELANOMA, NEVUS, answer, choice


def row(name, sample, judge=JUDGE, **more):
    """A row as an evaluation makes it; `votes` are the names that further samples gave."""
    votes = more.pop("votes", None)
    given = {
        "id": sample.id,
        "dataset": sample.dataset,
        "group": more.pop("group", sample.group),
        "kind": sample.kind if sample.structured else "conversation",
        "target": sample.target,
        "skin_type": sample.skin_type.value if sample.skin_type else None,
        "site": sample.site,
        "answer": answer(name).diagnosis,
        "reward": 0.0,
        "completion_length": 1,
        "reasoning_length": 0,
        "scores": {},
    }
    given |= more | judge.judge(answer(name), sample)
    return given if votes is None else given | judge.vote([answer(vote) for vote in votes], sample)


def test_diagnoses_and_their_means():
    rows = [
        row("mole", NEVUS, reward=1.0, scores={"format": 1.0, "kg": 0.5}),
        row("melanoma", NEVUS, reward=0.5, scores={"format": 0.0}),
        row("melanoma", MELANOMA, reward=0.0, scores={"format": 1.0}),
    ]
    found = summarise(rows)
    assert found["accuracy"] == pytest.approx(2 / 3) and found["balanced_accuracy"] == pytest.approx(3 / 4)
    assert (found["reward"], found["reward/format"], found["reward/kg"]) == pytest.approx((0.5, 2 / 3, 0.5))
    assert found["hierarchical_f1"] == pytest.approx((1 + 4 / 7 + 1) / 3)
    assert not any(name.startswith(("majority", "accuracy/", "faithfulness")) for name in found)


def test_a_wrong_answer_counts_for_the_class_that_it_names():
    """A lentigo is one of the lumped class, a superficial spreading melanoma a melanoma: each counts there."""
    rows = [row("lentigo", NEVUS), row("superficial spreading melanoma", LUMP), row("melanoma", MELANOMA)]
    assert named_classes(rows) == ["keratosis", "melanoma", "melanoma"]
    assert named_classes([row("halo nevus", MELANOMA), row("vitiligo", MELANOMA)]) == ["halo nevus", "vitiligo"]
    other = replace(LUMP, dataset="other")
    assert named_classes([row("lentigo", NEVUS), row("lentigo", other)]) == ["lentigo", "keratosis"]


def test_the_nearest_class_is_named():
    halo = replace(NEVUS, target="halo nevus", synonyms=(), concepts=("halo_nevus",))
    assert named_classes([row("halo nevus", MELANOMA), row("x", NEVUS), row("x", halo)])[0] == "halo nevus"
    assert named_classes([row("halo nevus", MELANOMA), row("x", NEVUS)])[0] == "nevus"


def test_sensitivity_and_specificity_are_those_of_scikit_learn():
    """An answer that names nothing known misses a melanoma, and rules out none where there is a nevus."""
    names = ["melanoma", "mole", "superficial spreading melanoma", "vitiligo", "", "keratosis", "melanoma", "acne"]
    samples = [MELANOMA, MELANOMA, MELANOMA, MELANOMA, MELANOMA, NEVUS, NEVUS, LUMP]
    found = summarise([row(name, sample) for name, sample in zip(names, samples, strict=True)])
    truth = [sample is MELANOMA for sample in samples]
    unknown = {"vitiligo", "", "acne"}
    called = [not t if name in unknown else "melanoma" in name for t, name in zip(truth, names, strict=True)]
    assert found["sensitivity"] == pytest.approx(recall_score(truth, called)) == pytest.approx(2 / 5)
    assert found["specificity"] == pytest.approx(recall_score(truth, called, pos_label=False)) == pytest.approx(1 / 3)


def test_votes_of_samples():
    """Of four images the nevus leads in two, comes second in one and fourth in one."""
    votes = [
        ["mole", "mole", "melanoma", "psoriasis", "mole"],
        ["mole", "melanoma", "nevus", "", ""],
        ["melanoma", "mole", "melanoma", "psoriasis", "x"],
        ["x", "y", "z", "mole", ""],
    ]
    found = summarise([row("mole", NEVUS, votes=each, sampled={"accuracy": 0.5}) for each in votes])
    assert found["majority_accuracy"] == 0.5 and found["sampled_accuracy"] == 0.5
    assert (found["top_3_accuracy"], found["top_5_accuracy"]) == (0.75, 1.0)
    confidences, right = [0.6, 0.4, 0.4, 0.2], [1, 1, 0, 0]
    assert [JUDGE.vote([answer(v) for v in each], NEVUS)["confidence"] for each in votes] == confidences
    by_hand = (abs(0.6 - 1) + abs(0.8 - 1) + abs(0.2 - 0)) / 4  # bins of confidence 0.6, 0.4 (two images) and 0.2
    assert found["majority_ece"] == pytest.approx(by_hand) and sum(right) == 2


def test_the_calibration_error_is_that_of_fifteen_bins():
    """Answers of confidence c that are right with probability c are calibrated; sure ones right half the time not."""
    generator = torch.Generator().manual_seed(0)
    confidence = torch.randint(1, 9, (400,), generator=generator) / 8
    right = torch.rand(400, generator=generator) < confidence
    rows = [
        row("mole", NEVUS, votes=["mole"]) | {"confidence": float(c), "target_rank": 1 if r else 2}
        for c, r in zip(confidence, right, strict=True)
    ]
    bins = (confidence * 15).ceil()
    by_hand = sum(
        float((bins == b).float().mean() * (confidence[bins == b].mean() - right[bins == b].float().mean()).abs())
        for b in bins.unique()
    )
    assert summarise(rows)["majority_ece"] == pytest.approx(by_hand, abs=1e-6) and by_hand < 0.1
    sure = [each | {"confidence": 1.0, "target_rank": 1 + i % 2} for i, each in enumerate(rows)]
    assert summarise(sure)["majority_ece"] == pytest.approx(0.5)


def test_positions_of_choices():
    """Right at A twice, B and C once; answered A three times and once not at all: A is chosen 3/3, right 2/4."""
    rows = [row(name, choice(right)) for name, right in (("A", 0), ("melanoma", 0), ("A", 1), ("x", 2))]
    found = summarise(rows, detailed=True)
    assert found["choice/accuracy"] == 0.5 and found["choice/position_bias"] == 0.5
    assert (found["choice/chosen/A"], found["choice/chosen/B"], found["choice/chosen/C"]) == (0.75, 0, 0)
    by_position = [found[f"choice/accuracy/position/{letter}"] for letter in "ABC"]
    assert by_position == [1, 0, 0] and "choice/accuracy_gap/position" not in found
    gap = summarise([each | {"id": i} for i, each in enumerate(rows * 20)], detailed=True)
    assert gap["choice/accuracy_gap/position"] == 1
    assert "choice/balanced_accuracy" not in found and "accuracy" not in found


def test_faithfulness_is_a_share_of_statements():
    """Two attributes stated of which one is true, one of one, none of none: 2 of 3, one per answer."""
    drawn = replace(NEVUS, findings={"colour": ("brown",), "border": ("regular",)}, findings_observed=True)
    rows = []
    for think in ("brown , irregular border", "regular", ""):
        judged = JUDGE.judge(parse(f"<think>{think}</think><answer>mole</answer>"), drawn)
        rows.append(row("mole", drawn) | judged)
    found = summarise(rows)
    assert found["faithfulness"] == pytest.approx(2 / 3) and found["findings_stated"] == 1
    assert "faithfulness" not in summarise(rows[2:])


def test_visual_question_answering_open_and_closed():
    vqa = replace(NEVUS, kind="vqa", synonyms=(), concepts=())
    pairs = [("yes", "yes"), ("no", "yes"), ("the left lung", "left lung"), ("lung", "left lung"), ("", "brain")]
    found = summarise([row(name, replace(vqa, target=target)) for name, target in pairs])
    assert found["vqa/accuracy"] == pytest.approx(2 / 5) and found["vqa/closed_accuracy"] == 0.5
    assert found["vqa/open_accuracy"] == pytest.approx(1 / 3)
    assert found["vqa/token_recall"] == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert found["vqa/token_f1"] == pytest.approx((1 + 2 / 3 + 0) / 3)
    assert 0 < found["vqa/bleu_1"] < 1 and 0 < found["vqa/rouge_l"] < 1


def test_conversation_has_metrics_of_its_own():
    """What does not apply to conversation (whether it is right) is not there."""
    talk = replace(NEVUS, reply="A mole.")
    rows = [row("mole", NEVUS, reward=1.0), row("mole", talk, reward=0.25), row("", talk, reward=0.75)]
    assert (
        summarise(rows, detailed=True).items() >= {"reward": 1.0, "conversation/reward": 0.5, "accuracy": 1.0}.items()
    )
    alone = summarise(rows[1:])
    assert alone == {
        "conversation/reward": 0.5, "conversation/completion_length": 1.0, "conversation/reasoning_length": 0.0
    }  # fmt: skip


def test_slices_and_intervals_of_a_test():
    """Right 30 of 40 on skin type I and 10 of 40 on V; two images of each lesion."""
    rows = []
    for tone, right in (("I", 30), ("V", 10)):
        toned = replace(NEVUS, skin_type=SkinType("fitzpatrick", tone, "drawn"), site="trunk" if tone == "V" else "")
        rows += [row("mole" if i < right else "melanoma", toned, group=f"{tone}{i // 2}") for i in range(40)]
    found = summarise(rows, detailed=True)
    assert found["accuracy"] == 0.5 and found["accuracy/n"] == 80
    assert 0.3 < found["accuracy/low"] < 0.4 and 0.6 < found["accuracy/high"] < 0.7
    assert found["accuracy/skin_type/I"] == 0.75 and found["accuracy/skin_type/V"] == 0.25
    assert found["accuracy/skin_type/V/n"] == 40 and found["accuracy/skin_type/V/high"] < 0.5
    assert found["accuracy_gap/skin_type"] == 0.5 and found["accuracy_gap/skin_type/low"] > 0.1
    assert found["accuracy/site/trunk"] == 0.25 and "accuracy_gap/site" not in found
    assert summarise(rows).keys() == {name for name in found if "/" not in name}
    assert summarise(rows, detailed=True) == found


def test_two_processes_judge_what_one_would():
    """Names with any characters pass from process to process as bytes; a process may have no rows."""
    rows = [row(name, sample) for name in ("mole", "naïve “mole”", "melanoma") for sample in (NEVUS, MELANOMA, LUMP)]
    one, first, second, idle = (EvaluationMetrics(detailed=True) for _ in range(4))
    one.update(rows)
    first.update(rows[:4])
    first.update(rows[4:5])
    second.update(rows[5:])
    idle.update([])
    assert all(state.dtype == torch.uint8 for state in first.rows + idle.rows)
    for other in (idle, second):
        first.merge_state(other)
    assert first.compute() == pytest.approx(one.compute()) and one.compute()["accuracy/n"] == 9
    first.reset()
    first.update([])
    assert first.compute() == {}


def test_metrics_are_functions_of_the_rows():
    rows = [row("mole", NEVUS, judge=Judge()), row("x", NEVUS, judge=Judge())]
    metrics = EvaluationMetrics()
    metrics.update(rows)
    assert metrics.compute() == summarise(rows) and "sensitivity" not in summarise(rows)
