"""Measures and intervals against scikit-learn, brute force and counts by hand."""

from time import process_time

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score

from dermiq.metrics.bootstrap import interval, p_value, resampled_means, resampled_sums
from dermiq.metrics.measures import by_group, classification, estimates, mean, resample, share, worst_group_gap


def by_sklearn(targets, named, weights=None):
    present = sorted({target for i, target in enumerate(targets) if weights is None or weights[i]})
    f1 = {"labels": present, "average": "macro", "zero_division": 0}
    recalls = [accuracy_score([c] * len(targets), named, sample_weight=weighted(targets, c, weights)) for c in present]
    return {
        "accuracy": accuracy_score(targets, named, sample_weight=weights),
        "balanced_accuracy": np.mean(recalls),
        "macro_f1": f1_score(targets, named, sample_weight=weights, **f1),
    }


def weighted(targets, chosen, weights):
    """Weights of the samples of one class: its recall is its accuracy."""
    return [(target == chosen) * (1 if weights is None else weights[i]) for i, target in enumerate(targets)]


def answers(n, seed=0):
    """Targets of four classes, of which one is rare, and what was named: right, one of them, or none of them."""
    rng = np.random.default_rng(seed)
    targets = [str(c) for c in rng.choice(list("abcd"), n, p=[0.6, 0.25, 0.12, 0.03])]
    guesses = rng.choice(["a", "b", "c", "d", "other", ""], n)
    return targets, [t if right else str(g) for t, right, g in zip(targets, rng.random(n) < 0.5, guesses, strict=True)]


def values(measures):
    return {name: measure.value for name, measure in measures.items()}


def test_three_kinds_of_accuracy():
    """Targets a a a b b c, named a a b b x a.

    accuracy 3/6.  recalls: a 2/3, b 1/2, c 0, mean 7/18.
    F1 = 2 right / (actual + named): a 4 / (3 + 3), b 2 / (2 + 2), c 0 / (1 + 0); mean (2/3 + 1/2) / 3 = 7/18.
    """
    found = values(classification(list("aaabbc"), list("aabbxa")))
    assert found == pytest.approx({"accuracy": 0.5, "balanced_accuracy": 7 / 18, "macro_f1": 7 / 18})


def test_the_majority_answer_is_at_chance_when_balanced():
    """Targets a x 8, b x 2, always named a: accuracy 0.8, recalls 1 and 0, F1 16/18 and 0."""
    found = values(classification(list("aaaaaaaabb"), list("aaaaaaaaaa")))
    assert found == pytest.approx({"accuracy": 0.8, "balanced_accuracy": 0.5, "macro_f1": 8 / 18})


@pytest.mark.parametrize("seed", range(3))
def test_accuracies_are_those_of_scikit_learn(seed):
    targets, named = answers(200, seed)
    found = values(classification(targets, named))
    assert found == pytest.approx(by_sklearn(targets, named))
    known = [name if name in targets else min(set(targets) - {t}) for t, name in zip(targets, named, strict=True)]
    assert found["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(targets, known))


def test_a_resample_is_what_scikit_learn_says_of_the_weights():
    """The weight of a sample is how often its cluster was drawn; a class may be drawn not at all."""
    targets, named = answers(40)
    clusters = [i // 3 for i in range(40)]
    weights = resampled_sums(np.eye(40), clusters, resamples=8, seed=1)
    assert {len(set(row[:3])) for row in weights} == {1} and weights[:, ::3].sum(axis=1) == pytest.approx([14] * 8)
    assert any("d" not in {t for t, w in zip(targets, row, strict=True) if w} for row in weights)
    measures = classification(targets, named)
    drawn = {
        name: measure.statistic(resampled_sums(measure.counts, clusters, resamples=8, seed=1))
        for name, measure in measures.items()
    }
    for i, row in enumerate(weights):
        assert {name: draws[i] for name, draws in drawn.items()} == pytest.approx(by_sklearn(targets, named, row))


def test_the_interval_of_a_mean_is_the_textbook_one():
    """Of 1,000 independent 0/1 values it is p +- 1.96 sqrt(p (1 - p) / n), to within the error of 2,000 resamples."""
    right = np.arange(1000) < 300
    draws = resampled_means(right[:, None], range(1000), resamples=2000)[:, 0]
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert interval(draws) == pytest.approx((0.3 - half, 0.3 + half), abs=0.003)


def test_copies_of_a_sample_are_no_further_witnesses():
    """Four images of each lesion leave the interval as it is; taken for lesions of their own, they would halve it."""
    right = np.random.default_rng(0).random(100) < 0.5
    four = np.repeat(right, 4)
    one = interval(resampled_means(right[:, None], range(100)))
    clustered = interval(resampled_means(four[:, None], np.repeat(np.arange(100), 4).tolist()))
    naive = interval(resampled_means(four[:, None], range(400)))
    assert clustered == one
    assert naive[1] - naive[0] == pytest.approx((one[1] - one[0]) / 2, rel=0.15)


def test_values_that_do_not_apply_are_left_out_of_the_means():
    columns = np.array([[1.0, np.nan], [0.0, 4.0], [np.nan, 2.0]])
    draws = resampled_means(columns, "abc", resamples=500)
    counts = resampled_sums(np.eye(3), "abc", resamples=500)
    for column, drawn in zip(columns.T, draws.T, strict=True):
        known = ~np.isnan(column)
        by_hand = [np.average(column[known], weights=row[known]) if row[known].any() else np.nan for row in counts]
        np.testing.assert_allclose(drawn, by_hand)
    assert np.isnan(draws).any()


def test_ten_thousand_samples_a_thousand_times_in_two_seconds():
    start = process_time()
    draws = resampled_means(np.ones((10_000, 10)), range(10_000))
    assert draws.shape == (1000, 10) and process_time() - start < 2


def test_p_values():
    """Twice the smaller side, each with one more: 1 of 9 below 0 gives 2 * 2 / 10; none gives 2 / 10."""
    assert p_value([-1.0, *[1.0] * 8]) == pytest.approx(0.4)
    assert p_value([1.0] * 9) == pytest.approx(0.2) == p_value([-1.0] * 9)
    assert p_value([0.0] * 9) == 1.0


def test_p_values_are_uniform_where_there_is_no_difference():
    """Of 200 experiments without an effect about 5 % come out below 0.05."""
    rng = np.random.default_rng(0)
    differences = rng.standard_normal((60, 200))
    draws = resampled_means(differences, range(60))
    low = np.mean([p_value(column) < 0.05 for column in draws.T])
    assert 0.01 < low < 0.12


def test_shares_and_means():
    assert share([1, 0, 3], [2, 0, 4]).value == pytest.approx(4 / 6) and share([1, 0, 3], [2, 0, 4]).n == 6
    assert mean([1.0, None, 0.0, 0.5]).value == 0.5 and mean([1.0, None, 0.0, 0.5]).n == 3
    assert np.isnan(mean([None]).value)


def test_groups_and_the_gap_between_them():
    """V is right 20 of 40 times, I 36 of 40, II 1 of 5: too few to be the worst of the groups that count."""
    right = [i < 20 for i in range(40)] + [i < 36 for i in range(40)] + [True] + [False] * 4 + [True, False]
    groups = ["V"] * 40 + ["I"] * 40 + ["II"] * 5 + [None, ""]
    found = by_group(right, groups)
    assert values(found) == pytest.approx({"I": 0.9, "II": 0.2, "V": 0.5})
    assert {name: measure.n for name, measure in found.items()} == {"I": 40, "II": 5, "V": 40}
    gap = worst_group_gap(found)
    assert gap.value == pytest.approx(0.4)
    assert worst_group_gap(found, least=5).value == pytest.approx(0.7)
    assert worst_group_gap({"V": found["V"], "II": found["II"]}) is None
    ends = estimates({"gap": gap}, range(len(right)))
    assert 0.15 < ends["gap/low"] < 0.4 < ends["gap/high"] < 0.6


def test_estimates_have_an_interval_where_something_varies():
    measures = {"all": mean([1.0, 0.0, 1.0, 1.0]), "one": mean([1.0, None, None, 1.0]), "none": mean([None] * 4)}
    assert estimates(measures, ["a", "b", "b", "a"]) == {
        "all": 0.75, "all/low": 0.5, "all/high": 1.0, "all/n": 4, "one": 1.0, "one/n": 2, "none/n": 0
    }  # fmt: skip
    assert estimates({}, []) == {}


def test_a_paired_difference_by_hand():
    """Of 0.1 and 0.3, by which one system is better: resamples hold both, or one of them twice."""
    one, other = resample([mean([0.5, 0.4]), mean([0.6, 0.7])], ["a", "b"])
    found = other - one
    assert found.value == pytest.approx(0.2)
    assert set(found.resampled.round(9)) == {0.1, 0.2, 0.3}
    assert found.standard_error == pytest.approx(0.2 / 8**0.5, rel=0.1)
    assert found.interval == pytest.approx((0.1, 0.3))
    assert found.p == p_value(found.resampled) < 0.01 and (one - one).p == 1


def test_the_same_number_from_the_samples_differences():
    rng = np.random.default_rng(3)
    before, after = rng.random((2, 40))
    clusters = np.arange(40) // 2
    one, other, differences = resample([mean(before), mean(after), mean(after - before)], clusters.tolist())
    np.testing.assert_allclose((other - one).resampled, differences.resampled, atol=1e-12)
    assert (other - one).value == pytest.approx(differences.value)
