"""Answers of visual question answering against sacrebleu, rouge-score and the formulas of LLaVA-Med's evaluation."""

import numpy as np
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from dermiq.metrics.text import bleu, is_closed, overlap, tokens, yes_or_no

ANSWERS = [
    "The right side of the lower lobe of lung.",
    "an irregular pigmented network with streaks",
    "basal cells in nests with peripheral palisading of nuclei",
    "x-ray",
    "",
]
TARGETS = [
    "right lower lobe of the left lung",
    "irregular pigmented network with dots",
    "nests of basal cells with palisading of nuclei at the border",
    "CT",
    "melanin in the dermis",
]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_bleu_is_that_of_sacrebleu(n):
    given, wanted = ([" ".join(tokens(text)) for text in texts] for texts in (ANSWERS, TARGETS))
    reference = sacrebleu.metrics.BLEU(max_ngram_order=n, tokenize="none", smooth_method="none", lowercase=False)
    expected = reference.corpus_score(given, [wanted]).score / 100
    assert bleu(ANSWERS, TARGETS)[f"bleu_{n}"] == pytest.approx(expected, abs=1e-5) and expected > 0.1


def test_bleu_by_hand():
    """The left lung for the left upper lung: 2 of 2 words are right, too short by exp(1 - 3/2); no pair of words is."""
    found = bleu(["left lung"], ["the left upper lung"])
    assert found == pytest.approx({"bleu_1": np.exp(-0.5), "bleu_2": 0, "bleu_3": 0, "bleu_4": 0})
    assert set(bleu([""], ["yes"]).values()) == {0.0}


def test_rouge_is_that_of_the_reference_implementation():
    scorer = RougeScorer(["rougeL"])
    for answer, target in zip(ANSWERS, TARGETS, strict=True):
        expected = scorer.score(" ".join(tokens(target)), " ".join(tokens(answer)))["rougeL"].fmeasure
        assert overlap(answer, target)["rouge_l"] == pytest.approx(expected, abs=1e-6)


def test_token_overlap_by_hand():
    """The left lower lung lobe for the right lower lobe: two of four are wanted, two of three are found."""
    found = overlap("The left lower lung lobe.", "right lower lobe")
    assert found["token_precision"] == 0.5 and found["token_recall"] == pytest.approx(2 / 3)
    assert found["token_f1"] == pytest.approx(2 * 0.5 * (2 / 3) / (0.5 + 2 / 3))
    assert overlap("lung lung lung", "lung base")["token_precision"] == pytest.approx(1 / 3)  # a word counts once
    assert overlap("", "lung") == overlap("brain", "lung") == dict.fromkeys(found, 0.0)


def test_without_repeated_words_it_is_the_count_of_llava_med():
    for answer, target in zip(ANSWERS[1:2] + ANSWERS[3:], TARGETS[1:2] + TARGETS[3:], strict=True):
        given, wanted = set(tokens(answer)), set(tokens(target))
        tp, fp, fn = len(given & wanted), len(given - wanted), len(wanted - given)
        precision, recall = tp / max(tp + fp, 1), tp / (tp + fn)
        found = overlap(answer, target)
        assert (found["token_precision"], found["token_recall"]) == pytest.approx((precision, recall))
        assert found["token_f1"] == pytest.approx(2 * tp / (2 * tp + fp + fn))


@pytest.mark.parametrize(
    ("text", "word"),
    [("Yes, it is.", "yes"), ("No.", "no"), ("a nodule", None), ("yes and no", None), ("none", None), ("", None)],
)
def test_what_is_said(text, word):
    assert yes_or_no(text) == word


def test_closed_questions_have_yes_or_no_as_their_answer():
    assert is_closed("Yes") and is_closed("no.")
    assert not is_closed("no evidence of disease") and not is_closed("left")
