import itertools
import math
import time

import moocore
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from analysis.fronts import best_first, contributions, crowding, front, hypervolume, knee, ranks

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


def dominates(one, other, ways):
    signs = [1 if way == "min" else -1 for way in ways]
    pairs = [(sign * a, sign * b) for sign, a, b in zip(signs, one, other, strict=True)]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)


@given(points, directions)
def test_front_is_what_nobody_dominates(points, ways):
    expected = {i for i, p in enumerate(points) if not any(dominates(q, p, ways) for q in points)}
    found = front(points, ways)
    assert set(found) == expected
    assert len(found) == len(expected)


@given(points, directions)
def test_front_runs_from_the_best_first_objective_to_the_best_second(points, ways):
    chosen = [points[i] for i in front(points, ways)]
    assert [p[0] for p in chosen] == sorted((p[0] for p in chosen), reverse=ways[0] == "max")
    assert [p[1] for p in chosen] == sorted((p[1] for p in chosen), reverse=ways[1] == "min")


@given(points)
def test_hypervolume_counts_unit_squares(points):
    reference = (5.0, 5.0)
    squares = itertools.product(range(-5, 5), repeat=2)
    covered = sum(any(x <= a and y <= b for x, y in points) for a, b in squares)
    assert hypervolume(points, reference) == covered


@given(points, st.tuples(small, small))
def test_hypervolume_never_shrinks_by_another_point(points, another):
    assert hypervolume([*points, another], (3.0, 3.0)) >= hypervolume(points, (3.0, 3.0))


def test_hypervolume_with_a_direction_up():
    assert hypervolume([(1, 10), (2, 30)], (3, 0), ("min", "max")) == pytest.approx(1 * 10 + 1 * 30)


@given(points, directions)
def test_knee_is_on_the_front_and_does_not_depend_on_units(points, ways):
    index = knee(points, ways)
    if not points:
        assert index is None
        return
    assert index in front(points, ways)
    assert knee([(8 * x + 3, y / 16 - 1) for x, y in points], ways) == index


def test_knee_is_where_the_front_bends():
    assert knee([(0, 10), (1, 2), (5, 1), (10, 0)]) == 1
    assert knee([(0, -10), (1, -2), (5, -1), (10, 0)], ("min", "max")) == 1


@pytest.mark.parametrize(
    "flat",
    [
        [(1.0, 1.0)],
        [(0.0, 1.0), (1.0, 0.0)],
        [(0.0, 0.3), (0.1, 0.2), (0.2, 0.1), (0.3, 0.0)],
        [(0, 3), (2, 2), (3, 0)],
    ],
    ids=["one point", "two points", "straight", "hollow"],
)
def test_without_a_bulge_the_knee_is_the_best_first_objective(flat):
    assert knee(flat) == 0


def test_a_point_that_is_not_finite_is_on_no_front():
    assert front([(math.nan, 0), (-math.inf, 1), (1, 1), (0, math.nan)]) == [2]
    assert hypervolume([(math.nan, 0)], (1, 1)) == 0


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


@given(many, st.tuples(coordinate, coordinate), directions)
def test_contributions_are_moocores(points, reference, ways):
    expected = moocore.hv_contributions(array(points), ref=reference, maximise=maximised(ways))
    # moocore subtracts areas: its rounding errors are of the size of the largest.
    assert contributions(points, reference, ways) == pytest.approx(
        expected, rel=1e-9, abs=1e-9 * max(expected, default=0)
    )


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
    assert [contributions(points, (5.0, 5.0), ways)[i] for i in whole] == contributions(finite, (5.0, 5.0), ways)
    assert set(best_first(points, ways)[: len(whole)]) == set(whole)


def test_crowding_of_a_front():
    # the middle one: its neighbours are 3/4 of the first objective apart, and 1 of the second
    assert crowding([(0, 8), (1, 2), (4, 0)]) == [math.inf, 1 + 1, math.inf]
    assert crowding([(0, 8), (1, 4), (3, 2), (4, 0)]) == [math.inf, 3 / 4 + 6 / 8, 3 / 4 + 4 / 8, math.inf]


@pytest.mark.parametrize(
    ("few", "expected"),
    [
        ([], []),
        ([(1.0, 1.0)], [math.inf]),
        ([(1.0, 1.0), (1.0, 1.0)], [math.inf, 0.0]),
        ([(0.0, 2.0), (1.0, 1.0), (1.0, 1.0), (2.0, 0.0)], [math.inf, 2.0, 0.0, math.inf]),
        ([(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)], [math.inf, 1.0, math.inf]),
    ],
    ids=["none", "one", "equal", "a repeat", "one row"],
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
        start = time.perf_counter()
        ranks(points)
        return time.perf_counter() - start

    assert min(seconds() for _ in range(5)) < 0.15  # 0.016 on an idle core
