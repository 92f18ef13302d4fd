import math
from itertools import combinations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from analysis.stats import (
    Estimate,
    corrected,
    expected_best,
    holm,
    paired_test,
    significant_differences,
    simultaneous_margins,
    t_quantile,
    tuning_curve,
)

# Student's own data, 1908: hours of sleep gained by two drugs, over 10 patients; t = -4.0621, p = 0.002833.
FIRST = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
SECOND = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))

p_values = st.lists(st.floats(0, 1), max_size=12)
values_of_trials = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=7)
ways = st.sampled_from(["min", "max"])
seed_values = st.dictionaries(st.integers(0, 5), st.integers(-3, 3) | st.sampled_from([0.1, 1e3, 1e3 + 0.1, math.inf]))


def adjusted_by_holm(values):
    return holm(np.array(values, dtype=float)).tolist()


def every_pair(configurations):
    """By pair of places, all tests corrected together."""
    pairs = list(combinations(range(len(configurations)), 2))
    tests = corrected([paired_test(configurations[i], configurations[j]) for i, j in pairs])
    return dict(zip(pairs, tests, strict=True))


@pytest.mark.parametrize(("freedom", "published"), [(1, 12.7062), (2, 4.3027), (9, 2.2622), (120, 1.9799)])
def test_t_quantile_is_the_published_one(freedom, published):
    assert t_quantile(freedom) == pytest.approx(published, abs=5.1e-5)


def test_interval_of_three_seeds():
    estimate = Estimate.of([1.0, 2.0, 3.0])
    assert (estimate.mean, estimate.sd, estimate.n) == (2.0, 1.0, 3)
    assert estimate.interval() == pytest.approx((2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5), abs=1e-4)
    assert estimate.interval(0.99) == pytest.approx((2 - 9.9248 / 3**0.5, 2 + 9.9248 / 3**0.5), abs=1e-4)


def test_one_seed_has_no_spread():
    estimate = Estimate.of([0.0123])
    assert (estimate.sd, estimate.interval(), estimate.interval(0.99)) == (None, None, None)
    assert (estimate.text, estimate.interval_text()) == ("0.01230", "one seed")
    assert (Estimate.of([]).text, Estimate.of([]).interval_text()) == ("–", "–")


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.0188, 0.0192, 0.0190], "0.01900 ± 0.00020"),
        ([250.0, 280.0, 260.0], "263 ± 15"),
        ([1000.0, 3000.0], "2000 ± 1414"),
        ([5.0, 5.0], "5.000 ± 0.000"),
        ([0.0, 0.0], "0.0 ± 0.0"),
    ],
)
def test_digits_follow_the_spread(values, text):
    assert Estimate.of(values).text == text


def test_an_interval_is_cut_off_at_the_least_possible_value():
    low, high = Estimate.of([100.0, 200.0], least=1.0).interval()
    assert low == 1.0
    assert high > 200


def test_holm_of_a_worked_example():
    assert adjusted_by_holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_holm_lies_between_no_correction_and_bonferronis(values):
    adjusted = adjusted_by_holm(values)
    for p, q in zip(values, adjusted, strict=True):
        assert p <= q <= min(1, len(values) * p)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


def margins(*configurations):
    """With the second objective the same for all."""
    return simultaneous_margins(
        configurations, [(fmean(one.values()) if one else math.nan, 0) for one in configurations]
    )


def test_the_margin_of_one_configuration_is_the_plain_t_intervals():
    assert margins({0: 1.0, 1: 2.0, 2: 3.0}) == pytest.approx([4.3027 / 3**0.5], abs=1e-4)


@pytest.mark.parametrize("broken", [{}, {0: 1.0}, {0: 1.0, 1: math.inf}])
def test_without_two_values_there_is_no_margin(broken):
    none, some = margins(broken, {0: 1.0, 1: 2.0})
    assert math.isnan(none)
    assert some > 0


def test_what_a_seed_does_to_all_widens_by_its_own_freedom_alone():
    alike = [{seed: 100.0 * c + value for seed, value in enumerate((1.0, 2.0, 3.0))} for c in range(8)]
    assert margins(*alike) == pytest.approx([4.3027 / 3**0.5] * 8, abs=1e-3)


def test_neighbours_tell_the_spread_and_an_interval_is_no_narrower_than_its_own_seeds():
    chance = np.random.default_rng(0)
    calm = [dict(enumerate(chance.normal(c, 0.1, 5).tolist())) for c in range(8)]
    wild = [dict(enumerate(chance.normal(100 + c, 1, 5).tolist())) for c in range(8)]
    apart = margins(*calm, *wild)
    assert max(apart[:8]) < 0.3 < 0.9 < min(apart[8:])
    among = dict(enumerate(chance.normal(4, 1, 5).tolist()))
    assert margins(*calm, among)[-1] > 0.8
    later_first = [dict(reversed(one.items())) for one in (*calm, *wild)]
    assert margins(*later_first) == pytest.approx(apart)


@given(p_values.filter(bool), st.data())
def test_a_comparison_that_was_no_test_does_not_count(values, data):
    at = data.draw(st.integers(0, len(values)))
    adjusted = adjusted_by_holm([*values[:at], math.nan, *values[at:]])
    assert math.isnan(adjusted.pop(at))
    assert adjusted == adjusted_by_holm(values)


def test_students_own_sleep_data():
    test = paired_test(FIRST, SECOND)
    assert test.p == pytest.approx(0.002833, abs=1e-6)
    assert test.difference.mean == pytest.approx(-1.58)
    assert test.difference.interval(test.confidence) == pytest.approx((-2.4599, -0.7001), abs=1e-4)
    assert test.significant
    assert paired_test(SECOND, FIRST).p == test.p
    assert paired_test({**FIRST, 99: 1e6}, SECOND) == test  # only shared seeds count


@given(st.lists(st.tuples(*[st.integers(-50, 50)] * 2), min_size=2, max_size=6))
def test_alone_it_is_scipys_test_and_agrees_with_the_interval_of_the_difference(pairs):
    one, other = ({seed: float(pair[k]) for seed, pair in enumerate(pairs)} for k in (0, 1))
    test = paired_test(one, other)
    low, high = test.difference.interval(test.confidence)
    assert test.significant != (low <= 0 <= high)
    if len({a - b for a, b in pairs}) > 1:
        assert test.p == pytest.approx(scipy_stats.ttest_rel(*zip(*pairs, strict=True)).pvalue, rel=1e-9)


@pytest.mark.parametrize(
    ("one", "other"),
    [({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 2.0}, {2: 1.0, 3: 2.0}), ({0: 1.0, 1: math.inf}, {0: 1.0, 1: 2.0}), ({}, {})],
    ids=["one seed", "none shared", "a failure", "nothing"],
)
def test_what_cannot_be_tested_is_not_significant(one, other):
    test = paired_test(one, other)
    assert math.isnan(test.p)
    assert math.isnan(test.adjusted)
    assert not test.significant
    assert test.difference.interval() is None


def test_the_same_difference_for_every_seed():
    one, other = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.0, 2: 4.0}
    assert (paired_test(one, other).p, paired_test(one, one).p) == (0, 1)


def test_more_comparisons_need_more_evidence():
    alone = paired_test(FIRST, SECOND)
    others = [{seed: value + 9 * (-1) ** seed for seed, value in FIRST.items()}] * 30
    among = corrected([alone, *(paired_test(FIRST, other) for other in others)])[0]
    assert (among.p, among.tests) == (alone.p, 31)
    assert among.adjusted == pytest.approx(31 * alone.p)
    assert alone.significant
    assert not among.significant
    wide, narrow = (test.difference.interval(test.confidence) for test in (among, alone))
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


@given(st.lists(seed_values, min_size=2, max_size=6), st.data())
def test_one_differs_from_all_others_as_every_pair_would(configurations, data):
    place = data.draw(st.integers(0, len(configurations) - 1))
    found = significant_differences(place, configurations)
    assert not found.pop(place)
    assert found == [test.significant for pair, test in every_pair(configurations).items() if place in pair]


@given(values_of_trials, ways, st.data())
def test_expected_best_is_the_mean_over_all_ways_to_draw(values, way, data):
    n = data.draw(st.integers(1, len(values)))
    best = min if way == "min" else max
    assert expected_best(values, n, way) == pytest.approx(fmean(map(best, combinations(values, n))), abs=1e-9)


@given(values_of_trials, ways)
def test_more_trials_are_never_worse(values, way):
    curve = tuning_curve(values, way)
    for line in (curve.expected, curve.median):
        assert line == pytest.approx(sorted(line, reverse=way == "min"))
        assert line[-1] == pytest.approx(min(values) if way == "min" else max(values))


@pytest.mark.parametrize("failure", [math.inf, -math.inf, math.nan])
def test_a_failure_counts_as_the_worst_that_did_not_fail(failure):
    assert expected_best([1.0, failure, 3.0], 2) == expected_best([1.0, 3.0, 3.0], 2)
    assert expected_best([1.0, failure, 3.0], 2, "max") == expected_best([1.0, 1.0, 3.0], 2, "max")
    assert math.isnan(expected_best([failure], 1))


def test_in_the_median_a_failure_is_infinitely_bad():
    assert tuning_curve([1.0, math.nan, math.inf, math.nan]).median == (math.inf, math.inf, 1.0, 1.0)
    assert tuning_curve([1.0, math.nan, math.inf, math.nan], "max").median[0] == -math.inf


@pytest.mark.parametrize(("values", "n"), [([1.0, 2.0], 3), ([1.0, 2.0], 0), ([], 1)])
def test_no_more_trials_than_there_are(values, n):
    with pytest.raises(ValueError, match=f"the best of {n} trials"):
        expected_best(values, n)


def test_intervals_of_the_median_cover_it():
    chance, n = np.random.default_rng(0), 10
    median = 1 - 0.5 ** (1 / n)  # of the least of n uniform numbers
    curves = [tuning_curve(chance.random(60).tolist()) for _ in range(300)]
    assert np.mean([curve.low[n - 1] <= median <= curve.high[n - 1] for curve in curves]) > 0.93


def test_few_trials_leave_the_median_open():
    curve = tuning_curve([1.0, 2.0, 3.0])
    assert curve.low == (-math.inf,) * 3
    assert curve.high[0] == math.inf
    assert tuning_curve([1.0, 2.0, 3.0], "max").high == (math.inf,) * 3
    assert tuning_curve([]).expected == ()
