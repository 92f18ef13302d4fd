import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.comparisons import against, holm, paired, pairwise, told_apart_from

# Student's own data, 1908: hours of sleep gained by two drugs, over 10 patients; t = -4.0621, p = 0.002833.
FIRST = dict(enumerate([0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]))
SECOND = dict(enumerate([1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]))

p_values = st.lists(st.floats(0, 1), max_size=12)


def test_holm_of_a_worked_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(p_values)
def test_holm_lies_between_no_correction_and_bonferronis(values):
    adjusted = holm(values)
    for p, q in zip(values, adjusted, strict=True):
        assert p <= q <= min(1, len(values) * p)
    order = sorted(range(len(values)), key=values.__getitem__)
    assert [adjusted[i] for i in order] == sorted(adjusted)


@given(p_values.filter(bool), st.data())
def test_a_comparison_that_was_no_test_does_not_count(values, data):
    at = data.draw(st.integers(0, len(values)))
    adjusted = holm([*values[:at], math.nan, *values[at:]])
    assert math.isnan(adjusted.pop(at))
    assert adjusted == holm(values)


def test_holm_keeps_false_rejections_at_five_percent():
    chance = np.random.default_rng(0)
    wrong = [min(holm(chance.random(8).tolist())) <= 0.05 for _ in range(4000)]
    assert np.mean(wrong) == pytest.approx(0.05, abs=0.011)


def test_students_own_sleep_data():
    compared = paired(FIRST, SECOND)
    assert compared.p == pytest.approx(0.002833, abs=1e-6)
    assert compared.difference is not None
    assert compared.difference.mean == pytest.approx(-1.58)
    assert compared.interval == pytest.approx((-2.4599, -0.7001), abs=1e-4)
    assert compared.effect == pytest.approx(-1.2846 * 0.9143, abs=1e-3)
    assert compared.told_apart
    assert paired(SECOND, FIRST).p == compared.p


@given(st.lists(st.tuples(*[st.integers(-50, 50)] * 2), min_size=2, max_size=6))
def test_alone_it_agrees_with_the_interval_of_the_difference(pairs):
    one, other = ({seed: float(pair[k]) for seed, pair in enumerate(pairs)} for k in (0, 1))
    compared = paired(one, other)
    assert compared.interval is not None
    assert compared.told_apart != (compared.interval[0] <= 0 <= compared.interval[1])


def test_only_shared_seeds_count():
    assert paired({**FIRST, 99: 1e6}, SECOND) == paired(FIRST, SECOND)


@pytest.mark.parametrize(
    ("one", "other"),
    [({0: 1.0}, {0: 2.0}), ({0: 1.0, 1: 2.0}, {2: 1.0, 3: 2.0}), ({0: 1.0, 1: math.inf}, {0: 1.0, 1: 2.0}), ({}, {})],
    ids=["one seed", "none shared", "a failure", "nothing"],
)
def test_what_cannot_be_tested_is_not_told_apart(one, other):
    compared = paired(one, other)
    assert math.isnan(compared.p)
    assert math.isnan(compared.adjusted)
    assert not compared.told_apart
    assert compared.interval is None
    assert compared.effect is None


def test_the_same_difference_for_every_seed():
    one, other = {0: 1.0, 1: 2.0, 2: 3.0}, {0: 2.0, 1: 3.0, 2: 4.0}
    assert paired(one, other).p == 0
    assert paired(one, other).effect == -math.inf
    assert paired(one, one).p == 1
    assert paired(one, one).effect == 0


def test_more_comparisons_need_more_evidence():
    alone = paired(FIRST, SECOND)
    among = against(FIRST, [SECOND, *[{seed: value + 9 * (-1) ** seed for seed, value in FIRST.items()}] * 30])[0]
    assert among.p == alone.p
    assert among.adjusted == pytest.approx(31 * alone.p)
    assert alone.told_apart
    assert not among.told_apart
    assert among.together == 31
    assert among.interval is not None
    assert alone.interval is not None
    assert among.interval[0] < alone.interval[0] < alone.interval[1] < among.interval[1]


def test_every_pair_is_compared_once():
    third = {seed: value + 5 + 0.1 * seed for seed, value in FIRST.items()}
    compared = pairwise([FIRST, SECOND, third, {0: 1.0}])
    assert list(compared) == [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
    assert [pair for pair, comparison in compared.items() if math.isnan(comparison.p)] == [(0, 3), (1, 3), (2, 3)]
    assert {comparison.together for comparison in compared.values()} == {3}
    tested = [compared[pair] for pair in ((0, 1), (0, 2), (1, 2))]
    assert [comparison.adjusted for comparison in tested] == holm([comparison.p for comparison in tested])
    assert pairwise([FIRST]) == {}


seed_values = st.dictionaries(st.integers(0, 5), st.integers(-3, 3) | st.sampled_from([0.1, 1e3, 1e3 + 0.1, math.inf]))


@given(st.lists(seed_values, min_size=2, max_size=6), st.data())
def test_one_is_told_apart_from_all_as_every_pair_would_be(configurations, data):
    place = data.draw(st.integers(0, len(configurations) - 1))
    found = told_apart_from(place, configurations)
    assert not found.pop(place)
    mine = [made.told_apart for pair, made in pairwise(configurations).items() if place in pair]
    assert found == mine


def test_among_many_the_same_are_told_apart():
    chance = np.random.default_rng(2)
    middles = chance.integers(0, 4, 60)
    many = [dict(enumerate((middle + 0.15 * chance.normal(size=5)).tolist())) for middle in middles]
    place = int(np.argmin(middles))
    mine = [made.told_apart for pair, made in pairwise(many).items() if place in pair]
    found = told_apart_from(place, many)
    assert found[:place] + found[place + 1 :] == mine
    assert 5 < sum(mine) < 59


def test_the_effect_of_few_seeds_is_unbiased():
    chance = np.random.default_rng(1)
    zeros = dict.fromkeys(range(4), 0.0)
    effects = [paired(dict(enumerate(chance.normal(1.0, 1.0, 4).tolist())), zeros).effect for _ in range(4000)]
    assert np.mean(effects) == pytest.approx(1.0, abs=0.06)  # Cohen's d would be 1.38
