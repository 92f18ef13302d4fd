import math
import time

import moocore
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analysis.fronts import (
    band,
    best_first,
    crowding,
    drawn_means,
    front,
    hypervolume,
    knee,
    near_front,
    probability_on_front,
    ranks,
    settled,
)
from analysis.stats import paired_test

small = st.integers(-4, 4).map(float)
points = st.lists(st.tuples(small, small), max_size=12)
directions = st.tuples(*[st.sampled_from(["min", "max"])] * 2)

# Of few values, so that many are equal, in a row or in a column; and of any.
coordinate = small | st.floats(-1e6, 1e6)
many = st.lists(st.tuples(coordinate, coordinate), max_size=40)
no_number = st.sampled_from([math.inf, -math.inf, math.nan])
broken = st.tuples(coordinate, no_number) | st.tuples(no_number, coordinate)


def array(points):
    return np.array(points, dtype=float).reshape(-1, 2)


def maximised(ways):
    return [way == "max" for way in ways]


@given(points, directions)
def test_knee_is_on_the_front_and_does_not_depend_on_units(points, ways):
    index = knee(points, ways)
    if not points:
        assert index is None
        return
    assert index in front(points, ways)
    assert knee([(8 * x + 3, y / 16 - 1) for x, y in points], ways) == index


def test_knee_is_where_the_front_bends_or_the_best_first_objective():
    assert knee([(0, 10), (1, 2), (5, 1), (10, 0)]) == 1
    assert knee([(0, -10), (1, -2), (5, -1), (10, 0)], ("min", "max")) == 1
    straight, hollow = [(0.0, 0.3), (0.1, 0.2), (0.2, 0.1), (0.3, 0.0)], [(0, 3), (2, 2), (3, 0)]
    assert [knee(flat) for flat in ([(1.0, 1.0)], [(0.0, 1.0), (1.0, 0.0)], straight, hollow)] == [0, 0, 0, 0]


@given(many, directions)
def test_front_is_moocores_with_equal_points_kept(points, ways):
    kept = moocore.is_nondominated(array(points), maximise=maximised(ways), keep_weakly=True)
    assert sorted(front(points, ways)) == np.flatnonzero(kept).tolist()


@given(many, st.tuples(coordinate, coordinate), directions)
@example([(1.0, 1.0), (1.0, 1.0)], (1.0, 2.0), ("min", "min"))
def test_hypervolume_is_moocores(points, reference, ways):
    expected = moocore.hypervolume(array(points), ref=reference, maximise=maximised(ways))
    assert hypervolume(points, reference, ways) == pytest.approx(expected, rel=1e-12)


@given(many, directions)
def test_ranks_are_moocores(points, ways):
    assert ranks(points, ways) == moocore.pareto_rank(array(points), maximise=maximised(ways)).tolist()


@given(st.lists(st.tuples(coordinate, coordinate) | broken, max_size=30), directions)
def test_points_that_are_not_finite_change_nothing_and_come_last(points, ways):
    whole = [i for i, point in enumerate(points) if all(map(math.isfinite, point))]
    finite = [points[i] for i in whole]
    last = max(ranks(finite, ways), default=0) + 1
    assert ranks(points, ways) == [
        ranks(finite, ways)[whole.index(i)] if i in whole else last for i in range(len(points))
    ]
    assert [i for i, rank in enumerate(ranks(points, ways)) if rank == 0] == sorted(front(points, ways))
    assert hypervolume(points, (5.0, 5.0), ways) == hypervolume(finite, (5.0, 5.0), ways)
    assert [crowding(points)[i] for i in whole] == crowding(finite)
    assert set(best_first(points, ways)[: len(whole)]) == set(whole)


@pytest.mark.parametrize(
    ("few", "expected"),
    [
        ([], []),
        ([(1.0, 1.0)], [math.inf]),
        ([(1.0, 1.0), (1.0, 1.0)], [math.inf, 0.0]),
        ([(0.0, 2.0), (1.0, 1.0), (1.0, 1.0), (2.0, 0.0)], [math.inf, 2.0, 0.0, math.inf]),
        ([(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], [math.inf, 1.0, math.inf]),
        # the middle one: its neighbours are 3/4 of the first objective apart, and 1 of the second
        ([(0, 8), (1, 2), (4, 0)], [math.inf, 1 + 1, math.inf]),
        ([(0, 8), (1, 4), (3, 2), (4, 0)], [math.inf, 3 / 4 + 6 / 8, 3 / 4 + 4 / 8, math.inf]),
    ],
    ids=["none", "one", "equal", "a repeat", "one row", "three", "four"],
)
def test_crowding_of_few_and_of_equal_points(few, expected):
    assert crowding(few) == expected


@given(many, directions)
def test_best_first_is_by_rank_then_the_loneliest(points, ways):
    order = best_first(points, ways)
    assert sorted(order) == list(range(len(points)))
    by_rank = ranks(points, ways)
    assert [by_rank[i] for i in order] == sorted(by_rank)
    first = [i for i in order if by_rank[i] == 0]
    lonely = dict(zip(sorted(first), crowding([points[i] for i in sorted(first)]), strict=True))
    assert [lonely[i] for i in first] == sorted(lonely.values(), reverse=True)


def test_ten_thousand_points_are_ranked_at_once():
    chance = np.random.default_rng(0)
    points = [tuple(point) for point in chance.random((10_000, 2)).tolist()]

    def seconds():
        start = time.process_time()
        ranks(points)
        return time.process_time() - start

    assert min(seconds() for _ in range(5)) < 0.15  # 0.016 on an idle core


def by_seed(*points):
    return {seed: (float(x), float(y)) for seed, (x, y) in enumerate(points)}


def noisy(means, n, spread, chance, shared=0.0):
    """Configurations around ``means`` (C, 2) with n seeds, each of which may move all of them alike."""
    means = np.asarray(means, dtype=float)
    values = means + spread * chance.normal(size=(n, *means.shape)) + shared * chance.normal(size=(n, 1, 2))
    return [by_seed(*values[:, c].tolist()) for c in range(len(means))]


# On an arc, well apart, and one inside the arc that all the middle ones dominate.
ARC = [(0.0, 1.0), (0.1, 0.5), (0.3, 0.25), (0.6, 0.1), (1.0, 0.0), (0.8, 0.8)]

configuration = st.dictionaries(st.integers(0, 3), st.tuples(small, small), max_size=4)


@pytest.mark.parametrize("shared", [0.0, 10.0], ids=["own noise", "noise of the seed for all, which cancels"])
def test_what_is_far_from_a_tie_is_certain(shared):
    configurations = noisy(ARC, 5, 0.001, np.random.default_rng(0), shared)
    probabilities = probability_on_front(configurations)
    assert probabilities == pytest.approx([1, 1, 1, 1, 1, 0], abs=0.01)
    assert settled(probabilities)
    assert near_front(configurations, probabilities, most=6) == []


def test_a_near_tie_is_not_settled_and_is_worth_seeds():
    configurations = noisy(ARC, 3, 0.01, np.random.default_rng(0))
    steps = (0.004, -0.006, 0.008)
    twin = {seed: (x + step, y + step) for step, (seed, (x, y)) in zip(steps, configurations[2].items(), strict=True)}
    probabilities = probability_on_front([*configurations, twin])
    # dominated unless the steps' mean is below 0: t = 0.48 with 2 degrees of freedom
    assert probabilities[-1] == pytest.approx(0.34, abs=0.05)
    assert not settled(probabilities)
    assert set(near_front([*configurations, twin], probabilities, most=3)) == {2, 6}


@given(st.lists(configuration, max_size=5), directions)
@settings(max_examples=20)
def test_probabilities_are_shares_or_all_unknown(configurations, ways):
    probabilities = probability_on_front(configurations, ways)
    assert len(probabilities) == len(configurations)
    known = any(len(configuration) > 1 for configuration in configurations)
    for p, configuration in zip(probabilities, configurations, strict=True):
        assert p == 0 if not configuration else (0 <= p <= 1 if known else math.isnan(p))
    if known:
        assert sum(probabilities) >= 1 - 1e-9  # some configuration is on every draw's front


@given(st.lists(st.lists(st.tuples(small, small), min_size=3, max_size=3), min_size=1, max_size=6), directions)
@settings(max_examples=20)
def test_every_draw_is_given_its_front(values, ways):
    configurations = [by_seed(*points) for points in values]
    draws = drawn_means(configurations)
    fronts = [front(list(map(tuple, draw.tolist())), ways) for draw in draws]
    expected = [sum(c in chosen for chosen in fronts) / 1000 for c in range(len(values))]
    assert probability_on_front(configurations, ways) == pytest.approx(expected)


def test_the_probability_to_be_better_is_that_of_the_paired_t_test():
    chance = np.random.default_rng(4)
    one, other = noisy([(1.0, 0.0), (1.02, 0.0)], 3, 0.02, chance, shared=1.0)
    draws = drawn_means([one, other], draws=40_000)
    better = np.mean(draws[:, 0, 0] > draws[:, 1, 0])
    test = paired_test({s: p[0] for s, p in one.items()}, {s: p[0] for s, p in other.items()})
    assert min(better, 1 - better) == pytest.approx(test.p / 2, abs=0.01)


def test_equal_configurations_are_on_the_front_together():
    one, other = noisy([(0.0, 1.0), (1.0, 0.0)], 3, 0.1, np.random.default_rng(0))
    assert probability_on_front([one, other, *[dict(one)] * 7])[2:] == [probability_on_front([one, other])[0]] * 7


def test_an_objective_without_spread_stays_what_it_is():
    rate = 64 * math.log2(300)
    some = [
        by_seed(*[(rate, value) for value in values]) for values in ([0.3, 0.31, 0.32], [0.5, 0.51, 0.52, 0.53, 0.5])
    ]
    assert (drawn_means(some)[..., 0] == rate).all()
    assert probability_on_front(some) == pytest.approx([1, 0], abs=0.02)


def test_with_one_seed_each_nothing_is_known_and_the_first_by_rank_are_worth_more():
    configurations = [by_seed(point) for point in ARC]
    probabilities = probability_on_front(configurations)
    assert all(map(math.isnan, probabilities))
    assert not settled(probabilities)
    assert near_front(configurations, probabilities, most=5)[:2] == [0, 4]
    assert sorted(near_front(configurations, probabilities, most=5)) == [0, 1, 2, 3, 4]


def test_one_seed_borrows_the_spread_of_the_others():
    chance = np.random.default_rng(0)
    certain = noisy(ARC, 5, 0.001, chance)
    doubtful = noisy(ARC, 5, 0.3, chance)
    single = by_seed((0.29, 0.24))
    assert probability_on_front([*certain, single])[-1] > 0.95
    assert 0.05 < probability_on_front([*doubtful, single])[-1] < 0.95


def test_a_borrowed_spread_is_as_wide_as_the_others():
    chance = np.random.default_rng(0)
    configurations = [*noisy([(0.0, 0.0)] * 50, 5, [2.0, 30.0], chance), by_seed((7.0, 8.0))]
    draws = drawn_means(configurations, draws=20_000)
    assert draws[:, -1].mean(axis=0) == pytest.approx([7, 8], abs=0.6)
    assert draws[:, -1].std(axis=0) == pytest.approx([2, 30], rel=0.15)
    assert draws[:, 0].std(axis=0).mean() < draws[:, -1].std(axis=0).mean()


def test_the_front_by_one_seed_is_worth_another():
    configurations = [*noisy(ARC, 5, 0.001, np.random.default_rng(0)), by_seed((-1.0, -1.0))]
    probabilities = probability_on_front(configurations)
    assert settled(probabilities)
    assert near_front(configurations, probabilities, most=3) == [6]


def test_the_nearest_to_even_odds_come_first_and_no_more_than_asked_for():
    configurations = [by_seed((0, 0), (1, 1))] * 5
    assert near_front(configurations, [0.99, 0.2, 0.5, 0.01, 0.7], most=2) == [2, 4]


@pytest.mark.parametrize("broken", [{}, by_seed((math.nan, 0.0)), by_seed((0.0, 0.0), (0.0, math.inf))])
def test_without_a_usable_value_it_is_not_on_the_front_and_changes_nothing(broken):
    configurations = noisy(ARC, 3, 0.05, np.random.default_rng(0))
    probabilities = probability_on_front([*configurations, broken])
    assert probabilities == [*probability_on_front(configurations), 0.0]
    assert 6 not in near_front([*configurations, broken], probabilities, most=7)
    singles = [by_seed(point) for point in ARC]
    assert near_front([broken, *singles], probability_on_front([broken, *singles]), most=9)[:2] == [1, 5]


@pytest.mark.parametrize("ways", [("min", "min"), ("min", "max"), ("max", "min"), ("max", "max")])
def test_the_band_is_moocores_attainment_surface_of_the_draws(ways):
    signs = np.array([1 if way == "min" else -1 for way in ways])
    configurations = noisy(np.array(ARC) * signs, 3, 0.05, np.random.default_rng(1))
    at = (signs[0] * np.linspace(-0.3, 1.3, 25)).tolist()
    found = band(configurations, at, ways)
    draws = drawn_means(configurations) * signs
    surfaces = moocore.eaf(draws.reshape(-1, 2), np.repeat(np.arange(1000), len(ARC)), percentiles=[2.5, 97.5])
    for level, line in zip((2.5, 97.5), found[:: signs[1]], strict=True):
        surface = surfaces[surfaces[:, 2] == level]
        reached = [surface[surface[:, 0] <= signs[0] * x, 1] for x in at]
        expected = [signs[1] * (values.min() if len(values) else math.inf) for values in reached]
        assert line == pytest.approx(expected)


def test_a_band_is_of_several_seeds_only():
    configurations = noisy(ARC, 3, 0.05, np.random.default_rng(1))
    lucky = by_seed((-9.0, -9.0))
    np.testing.assert_array_equal(band([*configurations, lucky], [0.0, 0.5]), band(configurations, [0.0, 0.5]))
    assert np.isnan(band([lucky], [0.0, 0.5])).all()


def test_the_band_holds_the_truth_where_the_plain_bootstraps_does_not():
    chance = np.random.default_rng(0)
    truth, at = 0.25, 0.45  # between two points of the arc
    held, plainly = [], []
    for _ in range(150):
        configurations = noisy(ARC, 3, 0.03, chance, shared=0.03)
        (low,), (high,) = band(configurations, [at])
        held.append(low <= truth <= high)
        values = np.array([list(one.values()) for one in configurations])
        resampled = values[:, chance.integers(3, size=(200, 3))].mean(axis=2)
        attained = np.where(resampled[..., 0] <= at, resampled[..., 1], np.inf).min(axis=0)
        low, high = np.quantile(attained, [0.025, 0.975])
        plainly.append(low <= truth <= high)
    assert 0.9 <= np.mean(held) <= 0.99
    assert np.mean(plainly) < 0.85
