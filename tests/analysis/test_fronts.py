import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.fronts import front, hypervolume, knee

small = st.integers(-4, 4).map(float)
points = st.lists(st.tuples(small, small), max_size=12)
directions = st.tuples(*[st.sampled_from(["min", "max"])] * 2)


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
