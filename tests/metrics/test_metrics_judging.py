"""What answers name: on a terminology small enough to count by hand, and on the ontology."""

from dataclasses import replace

import pytest

from dermiq.kg import Terminology
from dermiq.metrics import Judge
from dermiq.prompts import parse
from support.diagnoses import BROADER, JUDGE, LUMP, MELANOMA, NEVUS, answer, choice


def judged(name, sample, judge=JUDGE):
    return judge.judge(answer(name), sample)


@pytest.mark.parametrize(
    ("name", "sample", "named", "right"),
    [
        ("Mole.", NEVUS, "nevus", True),
        ("superficial spreading melanoma", MELANOMA, "melanoma", True),  # a form of the target
        ("superficial spreading melanoma", NEVUS, "superficial spreading melanoma", False),
        ("nevus", replace(NEVUS, target="halo nevus", synonyms=(), concepts=("halo_nevus",)), "nevus", False),
        ("lentigo", LUMP, "keratosis", True),  # one of the conditions that the label lumps together
        ("lentigo", NEVUS, "lentigo", False),
        ("nevus", BROADER, "nevus", False),  # the label means something that the terminology does not know
        ("the rare nevus", BROADER, "rare nevus", True),
        ("mole", replace(NEVUS, synonyms=(), concepts=()), "nevus", True),  # the target is a name, too
        ("Vitiligo.", NEVUS, "vitiligo", False),
        ("", NEVUS, "", False),
        ("nevus or melanoma", NEVUS, "nevus or melanoma", False),
    ],
)
def test_names_become_classes(name, sample, named, right):
    row = judged(name, sample)
    assert (row["named"], row["correct"]) == (named, right)


@pytest.mark.parametrize(
    ("name", "sample", "expected"),
    [
        ("melanoma", MELANOMA, 1.0),
        ("superficial spreading melanoma", MELANOMA, 2 * 3 / (4 + 3)),
        ("nevus", MELANOMA, 2 * 2 / (4 + 3)),  # both are melanocytic tumours
        ("keratosis", MELANOMA, 2 * 1 / (3 + 3)),
        ("psoriasis", MELANOMA, 0.0),
        ("lentigo", LUMP, 1.0),
        ("nevus", LUMP, 2 * 2 / (4 + 3)),
        ("nevus", BROADER, 2 * 4 / (4 + 5)),  # the target is one more below the nevus
        ("rare nevus", BROADER, 1.0),
        ("vitiligo", MELANOMA, 0.0),
        ("", MELANOMA, 0.0),
        ("melanoma", replace(NEVUS, target="unheard of", concepts=()), None),
    ],
)
def test_hierarchical_f1_by_hand(name, sample, expected):
    """Twice what the two lineages share, over the number of both."""
    assert judged(name, sample)["hierarchical_f1"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "sample", "malignant", "named"),
    [
        ("melanoma", NEVUS, False, True),
        ("superficial spreading melanoma", MELANOMA, True, True),
        ("mole", MELANOMA, True, False),
        ("vitiligo", MELANOMA, True, None),
        ("", NEVUS, False, None),
        ("rare nevus", BROADER, False, False),
        ("melanoma", replace(NEVUS, target="psoriasis", concepts=("psoriasis",)), None, True),
        ("melanoma", replace(NEVUS, concepts=("nevus", "melanoma")), None, True),  # the label says both
    ],
)
def test_malignancy(name, sample, malignant, named):
    row = judged(name, sample)
    assert (row["malignant"], row["named_malignant"]) == (malignant, named)


@pytest.mark.parametrize(
    ("names", "ranking", "votes", "rank"),
    [
        (["melanoma", "mole", "nevus"], ["nevus", "melanoma"], [2, 1], 1),
        (["melanoma", "mole"], ["melanoma", "nevus"], [1, 1], 2),  # a tie: the first named
        (["mole", "melanoma"], ["nevus", "melanoma"], [1, 1], 1),
        (["", "", "melanoma"], ["melanoma"], [1], None),  # malformed answers do not vote
        (["", ""], [], [], None),
    ],
)
def test_votes(names, ranking, votes, rank):
    row = JUDGE.vote([answer(name) for name in names], NEVUS)
    assert (row["ranking"], row["votes"], row["target_rank"]) == (ranking, votes, rank)
    assert row["majority"] == (ranking[0] if ranking else "")
    assert row["confidence"] == pytest.approx(votes[0] / len(names) if votes else 0.0)


def test_the_truth_does_not_decide_who_leads():
    """Three votes for the nevus, two each for two conditions that one label lumps: together they would outvote it."""
    names = ["nevus", "nevus", "nevus", "keratosis", "keratosis", "lentigo", "lentigo"]
    for sample in (NEVUS, LUMP):
        row = JUDGE.vote([answer(name) for name in names], sample)
        assert row["majority"] == "nevus" and row["votes"] == [3, 2, 2]


def test_without_a_terminology_names_count_as_they_stand():
    row = judged("mole", NEVUS, Judge())
    assert row == {"named": "nevus", "named_lineage": [], "concepts": [], "correct": True}
    assert judged("superficial spreading melanoma", MELANOMA, Judge())["named"] == "superficial spreading melanoma"


@pytest.mark.parametrize(
    ("name", "chosen", "named", "right"),
    [
        ("B", "B", "B", True),
        ("b. nevus", "B", "B", True),
        ("Nevus", "B", "B", True),
        ("C)", "C", "C", False),
        ("acne", None, "acne", False),
        ("", None, "", False),
    ],
)
def test_choices(name, chosen, named, right):
    row = judged(name, choice(1))
    assert (row["position"], row["position_chosen"], row["named"], row["correct"]) == ("B", chosen, named, right)
    assert "malignant" not in row


def test_findings_are_named_in_words():
    finding = replace(NEVUS, kind="finding", target="brown", synonyms=())
    assert judged("Brown.", finding)["correct"] and not judged("black", finding)["correct"]
    assert judged("melanoma", finding)["named_lineage"] == []


@pytest.mark.parametrize(
    ("name", "target", "named", "right"),
    [
        ("Yes, it is", "yes", "yes", True),
        ("no", "yes", "no", False),
        ("a nodule", "no", "nodule", False),
        ("The left lung", "left lung", "left lung", True),
        ("lung", "left lung", "lung", False),
    ],
)
def test_visual_question_answering(name, target, named, right):
    row = judged(name, replace(NEVUS, kind="vqa", target=target, synonyms=()))
    assert (row["named"], row["correct"], row["closed"]) == (named, right, target in ("yes", "no"))
    assert ("token_f1" in row) != row["closed"]


def test_findings_stated_of_a_drawn_image():
    drawn = replace(NEVUS, findings={"colour": ("brown",), "border": ("regular",)}, findings_observed=True)
    said = parse("<think> colour : brown . border : irregular . </think><answer> nevus </answer>")
    row = JUDGE.judge(said, drawn)
    assert (row["findings_true"], row["findings_stated"]) == (1, 2)
    typical = JUDGE.judge(said, replace(drawn, findings_observed=False))
    assert "findings_true" not in typical
    talk = JUDGE.judge(parse("It is brown."), replace(drawn, reply="It is brown and regular."))
    assert (talk["findings_true"], talk["findings_stated"], talk["correct"], talk["named"]) == (1, 1, None, None)


def test_on_the_ontology():
    judge = Judge(Terminology())
    melanoma = replace(MELANOMA, concepts=("melanoma",))
    row = judged("Superficial spreading melanomas", melanoma, judge)
    assert row["named"] == "melanoma" and row["correct"] and row["named_malignant"] and row["malignant"]
    assert row["named_lineage"][:2] == ["superficial_spreading_melanoma", "melanoma"]
    near, far = (judged(name, melanoma, judge)["hierarchical_f1"] for name in ("mole", "psoriasis"))
    assert 1 > row["hierarchical_f1"] > near > far == 0
