"""What the study's records say in numbers, against hand computation."""

import math

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score
from study.statistics import METRICS, Spread, collapses, metric, paired, spread, value

from dermiq.schema import DataError
from support.study_records import outcomes


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 12.706), (2, 4.303), (4, 2.776), (5, 2.571), (30, 2.042)])
def test_students_t_is_that_of_the_printed_tables(freedom, quantile):
    found = Spread(tuple(float(value) for value in range(freedom + 1)))
    assert found.half_width * math.sqrt(freedom + 1) / found.deviation == pytest.approx(quantile, abs=5e-4)


def test_spread_over_seeds():
    """Values 1, 2, 6: mean 3, variance (4 + 1 + 9) / 2 = 7, half-width 4.3027 * sqrt(7 / 3) = 6.5724."""
    found = spread([1.0, math.nan, 2.0, 6.0])
    assert found.values == (1.0, 2.0, 6.0) and found.mean == 3.0
    assert found.deviation == pytest.approx(math.sqrt(7))
    assert found.half_width == pytest.approx(6.5724, abs=1e-4)
    assert found.interval == pytest.approx((-3.5724, 9.5724), abs=1e-4)


def test_one_seed_has_no_interval_and_none_no_mean():
    assert Spread((0.5,)).mean == 0.5 and math.isnan(Spread((0.5,)).half_width) and math.isnan(Spread((0.5,)).deviation)
    assert math.isnan(Spread(()).mean)


def test_means_over_questions():
    found = outcomes(7)
    names = ("majority", "greedy", "sampled", "truthful", "recalled")
    assert [value(found, name) for name in names] == pytest.approx([0.7, 0.7, (7 * 0.75 + 3 * 0.25) / 10, 0.5, 0.25])


def test_balanced_accuracy_and_macro_f1():
    """Targets 0 0 0 1, named 0 0 -1 0: recalls 2/3 and 0; F1 of class 0 is 2 * 2 / (3 + 3), of class 1 it is 0."""
    found = outcomes(0, n=4, target=(0, 0, 0, 1), named=(0, 0, -1, 0))
    assert value(found, "majority_balanced") == pytest.approx(1 / 3)
    assert value(found, "majority_f1") == pytest.approx(1 / 3)


def test_balanced_accuracy_and_macro_f1_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    target, named = (tuple(rng.integers(0, 2, 50).tolist()) for _ in range(2))
    found = outcomes(0, n=50, target=target, named=named)
    assert value(found, "majority_balanced") == pytest.approx(balanced_accuracy_score(target, named))
    assert value(found, "majority_f1") == pytest.approx(f1_score(target, named, average="macro"))


def test_skin_types_and_their_gap():
    """Light: 3 of 4 right; dark: 1 of 3; IV is in neither."""
    found = outcomes(
        0, n=8, majority=(1, 1, 1, 0, 1, 0, 0, 0), skin_type=("I", "II", "III", "III", "V", "V", "VI", "IV")
    )
    names = ("majority_light", "majority_dark", "light_minus_dark", "majority_III", "majority_VI")
    assert [value(found, name) for name in names] == pytest.approx([3 / 4, 1 / 3, 3 / 4 - 1 / 3, 1 / 2, 0])


def test_position_bias_is_the_largest_excess_or_lack():
    """Right: A 1/2, B 1/4, C 1/4. Always A: A is chosen 1/2 too often. B thrice: A 1/2 too seldom, B 1/2 too often."""
    chosen = {"AAAA": 1 / 2, "BBBC": 1 / 2, "ABBC": 1 / 4, "CABA": 0}
    for letters, bias in chosen.items():
        found = outcomes(0, n=4, position=tuple("AABC"), chosen=tuple(letters))
        assert value(found, "position_bias") == pytest.approx(bias)
    assert value(outcomes(0, n=4, position=tuple("AABC"), chosen=("A", "", "B", "C")), "position_bias") == 1 / 4


@pytest.mark.parametrize("name", ["light_minus_dark", "majority_light", "sampled_VI", "position_bias", "truthful"])
def test_what_the_outcomes_do_not_hold_is_not_a_number(name):
    assert math.isnan(value(outcomes(5, truthful=()), name))


def test_an_unknown_metric_is_named():
    with pytest.raises(DataError, match="'accuracy', which does not exist; there are majority, greedy"):
        metric("accuracy")
    assert len({each.title for each in METRICS.values()}) == len(METRICS)


def test_collapses():
    """Of seeds 0 to 3 the second fell, the third stayed, and the start of the fourth is unknown."""
    assert collapses({0: 0.9, 1: 0.4, 2: 0.5, 3: 0.1, 4: math.nan}, {0: 0.5, 1: 0.5, 2: 0.5, 4: 0.5}) == (1, 3)


def test_paired_differences_by_hand():
    """0.8 - 0.6, 0.9 - 0.6 and 0.8 - 0.6: mean 7/30, deviation 0.1 / sqrt(3), half-width 4.3027 * 0.1 / 3 = 0.14342."""
    of = {seed: outcomes(right) for seed, right in {0: 8, 1: 9, 2: 8, 7: 1}.items()}
    found = paired(of, {seed: outcomes(6) for seed in (0, 1, 2, 3)}, "majority")
    assert found.seeds == (0, 1, 2) and found.spread.values == pytest.approx((0.2, 0.3, 0.2))
    assert found.spread.mean == pytest.approx(7 / 30)
    assert found.spread.interval == pytest.approx((7 / 30 - 0.14342, 7 / 30 + 0.14342), abs=1e-5)


def test_the_bootstrap_resamples_questions_and_seeds():
    """Exact variances: over questions alone p (1 - p) / n; seeds that differ by a constant add theirs."""
    one, other = outcomes(60, n=100), outcomes(40, n=100)  # differ on 20 questions: p = 0.2
    low, high = paired({0: one}, {0: other}, "majority").bootstrap
    assert (low + high) / 2 == pytest.approx(0.2, abs=0.015)
    assert (high - low) / (2 * 1.96) == pytest.approx(math.sqrt(0.2 * 0.8 / 100), rel=0.1)
    everywhere = {0: outcomes(100, n=100), 1: outcomes(100, n=100)}
    nowhere = {0: outcomes(0, n=100), 1: outcomes(100, n=100)}
    assert paired(everywhere, nowhere, "majority").bootstrap == (0, 1)  # questions cannot matter: means 0, 1/2 or 1
    assert paired(everywhere, everywhere, "majority").bootstrap == (0, 0)


def test_the_bootstrap_of_a_gap_is_between_its_extremes():
    types = ("I", "VI") * 20
    found = paired(
        {0: outcomes(20, n=40, skin_type=types)}, {0: outcomes(0, n=40, skin_type=types)}, "light_minus_dark"
    )
    assert found.spread.mean == 0 and found.bootstrap[0] < 0 < found.bootstrap[1]


def test_nothing_to_pair():
    assert paired({0: outcomes(5)}, {1: outcomes(5)}, "majority") is None
    assert paired({0: outcomes(5)}, {0: outcomes(5)}, "light_minus_dark") is None


def test_other_questions_are_refused():
    with pytest.raises(DataError, match="tested on different questions"):
        paired({0: outcomes(5)}, {0: outcomes(5, n=12)}, "majority")
