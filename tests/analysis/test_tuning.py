import math
from itertools import combinations, product
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.tuning import expected_best, expected_interval, tuning_curve

some = st.lists(st.integers(-9, 9).map(float), min_size=1, max_size=7)
ways = st.sampled_from(["min", "max"])


@given(some, ways, st.data())
def test_expected_best_is_the_mean_over_all_ways_to_draw(values, way, data):
    n = data.draw(st.integers(1, len(values)))
    best = min if way == "min" else max
    assert expected_best(values, n, way) == pytest.approx(fmean(map(best, combinations(values, n))), abs=1e-9)


@given(some.filter(lambda values: len(values) < 5), st.integers(1, 4), ways)
def test_with_replacement_too(values, n, way):
    best = min if way == "min" else max
    expected = fmean(best(drawn) for drawn in product(values, repeat=n))
    assert expected_best(values, n, way, replacement=True) == pytest.approx(expected, abs=1e-9)


def test_without_replacement_it_is_unbiased_and_with_it_too_pessimistic():
    chance = np.random.default_rng(0)
    runs = chance.random((2000, 10)).tolist()
    truth = 1 / 9  # the mean of the least of 8 uniform numbers
    assert fmean(expected_best(run, 8) for run in runs) == pytest.approx(truth, abs=0.006)
    assert fmean(expected_best(run, 8, replacement=True) for run in runs) > truth + 0.02


@given(some, ways)
def test_more_trials_are_never_worse(values, way):
    curve = tuning_curve(values, way)
    for line in (curve.expected, curve.median):
        worse_first = sorted(line, reverse=way == "min")
        assert line == pytest.approx(worse_first)
        assert line[-1] == pytest.approx(min(values) if way == "min" else max(values))


@pytest.mark.parametrize("failure", [math.inf, -math.inf, math.nan])
def test_a_failure_counts_as_the_worst_that_did_not_fail(failure):
    assert expected_best([1.0, failure, 3.0], 2) == expected_best([1.0, 3.0, 3.0], 2)
    assert expected_best([1.0, failure, 3.0], 2, "max") == expected_best([1.0, 1.0, 3.0], 2, "max")
    assert math.isnan(expected_best([failure], 1))


def test_the_median_knows_of_failures_what_they_are():
    curve = tuning_curve([1.0, math.nan, math.inf, math.nan])
    assert curve.median == (math.inf, math.inf, 1.0, 1.0)
    assert tuning_curve([1.0, math.nan, math.inf, math.nan], "max").median[0] == -math.inf


@pytest.mark.parametrize(("values", "n"), [([1.0, 2.0], 3), ([1.0, 2.0], 0), ([], 1)])
def test_no_more_trials_than_there_are(values, n):
    with pytest.raises(ValueError, match=f"the best of {n} trials"):
        expected_best(values, n)


def test_a_curve_may_stop_early():
    values = [3.0, 1.0, 2.0, 5.0]
    whole, part = tuning_curve(values), tuning_curve(values, most=2)
    assert part.expected == whole.expected[:2] == pytest.approx((11 / 4, 10 / 6))
    assert part.high == whole.high[:2]
    assert tuning_curve([]).expected == ()


def test_intervals_of_the_median_hold_where_the_bootstraps_of_the_mean_do_not():
    chance = np.random.default_rng(0)
    n, total = 10, 60
    median, mean = 1 - 0.5 ** (1 / n), 1 / (n + 1)  # of the least of n uniform numbers
    curves, intervals = [], []
    for _ in range(300):
        values = chance.random(total).tolist()
        curves.append(tuning_curve(values, most=n))
        intervals.append(expected_interval(values, n, draws=200))
    held = [curve.low[-1] <= median <= curve.high[-1] for curve in curves]
    assert np.mean(held) > 0.93
    assert 0.8 < np.mean([low <= mean <= high for low, high in intervals]) < 0.96


def test_few_trials_leave_the_median_open():
    curve = tuning_curve([1.0, 2.0, 3.0])
    assert curve.low == (-math.inf,) * 3
    assert curve.high[0] == math.inf
    up = tuning_curve([1.0, 2.0, 3.0], "max")
    assert up.high == (math.inf,) * 3


def test_the_bootstrap_is_repeatable_and_holds_the_estimate():
    values = np.random.default_rng(2).normal(size=40).tolist()
    low, high = expected_interval(values, 4, "max")
    assert low < expected_best(values, 4, "max") < high
    assert (low, high) == expected_interval(values, 4, "max")
    assert expected_interval(values, 4, "max", seed=1) != (low, high)
